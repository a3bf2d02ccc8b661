"""A tokenizer that needs no library: one token a word, its length."""

from tljax.data.text import Tokenizer


class Words:
    """A tokenizer's backend: one token a word."""

    def enable_truncation(self, longest):
        self.longest = longest

    def encode_batch(self, texts):
        return [type("Encoding", (), {"ids": [len(word) for word in text.split()][: self.longest]}) for text in texts]


TOKENIZER = Tokenizer(Words(), 0, 64)
