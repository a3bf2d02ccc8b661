"""A pretrained encoder and a data set of sentences, small enough to be fine-tuned in seconds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import bert, export, resnet

GOOD, BAD, OTHERS = ("good", "fine", "lovely"), ("bad", "dull", "awful"), ("film", "a", "the", "plot", "was")


def write_model(folder):
    """A folder with a BERT of two layers and its tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *OTHERS]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(words[:4])
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    model = bert("tiny", 2, width=16, depth=2, heads=2, vocab=len(words), positions=16, pool="pooler")
    x = {name: jnp.ones((1, 8), jnp.int32) for name in ("ids", "mask")}
    export(model, jax.jit(model.init)(jax.random.key(0), x), folder)
    made.save(str(folder / "tokenizer.json"))
    return folder


PREPROCESSOR = {"size": {"height": 8, "width": 8}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


def write_net(file, seed=0, width=2, preprocessor=None):
    """A small net for three classes of images, in the weight file `file`; its parameters are returned."""
    model = resnet(8, num_classes=3, width=width)
    params = jax.jit(model.init)(jax.random.key(seed), np.ones((1, 8, 8, 3), np.float32))
    file.parent.mkdir(exist_ok=True)
    export(model, params, file, format="safetensors")
    if preprocessor is not None:
        (file.parent / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return params


def write_sentences(folder):
    """Three parts of sentences that are good or bad by a word in them; the training part is returned."""
    rng = np.random.default_rng(0)
    for part, rows in (("train", 40), ("dev", 16), ("test", 24)):
        lines = []
        for i in range(rows):
            words = [*rng.choice(OTHERS, 3), rng.choice(GOOD if i % 2 else BAD)]
            lines.append(f"{'good' if i % 2 else 'bad'}\t{' '.join(rng.permutation(words))}")
        (folder / f"mood_{part}.tsv").write_text("\n".join(lines))
    return folder / "mood_train.tsv"


def write_images(folder):
    """A folder of images by class: bright or dark squares of differing sizes."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 60)):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(level - 40, level + 40, (12 + i, 14, 3), np.uint8)
            image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder
