"""Data sets: arrays that have been checked, readers, splits, and the order in which examples come."""

from tljax.data.arrays import Dataset, require_every_class
from tljax.data.augment import Augment, chain, on_levels, random_crop, random_flip
from tljax.data.builtin import BUILT_IN
from tljax.data.classes import class_indices
from tljax.data.colour import color_jitter
from tljax.data.error import DataError
from tljax.data.feed import Feed, InTurn, Part, Shuffled, filled, in_turn
from tljax.data.folder_source import ImageFolder
from tljax.data.images import Standardiser, fit_standardiser, match_images, resize_images, standardise
from tljax.data.mixing import cutmix, mixup
from tljax.data.operations import rand_augment
from tljax.data.order import batch_indices, batch_positions, fold_seed, shuffled_index
from tljax.data.preprocessor import Preprocessor, load_preprocessor
from tljax.data.sentences import Sentences, read_sentences
from tljax.data.sources import Source, load, load_whole
from tljax.data.splits import k_shot, stratified_split
from tljax.data.streaming import ExampleStream, stream
from tljax.data.text import TextData, Tokenizer, by_length, load_text, load_tokenizer
from tljax.data.text_source import TextSource, load_sentences
from tljax.data.unlabelled import Unlabelled, load_texts, load_unlabelled

__all__ = [
    "BUILT_IN",
    "Augment",
    "DataError",
    "Dataset",
    "ExampleStream",
    "Feed",
    "ImageFolder",
    "InTurn",
    "Part",
    "Preprocessor",
    "Sentences",
    "Shuffled",
    "Source",
    "Standardiser",
    "TextData",
    "TextSource",
    "Tokenizer",
    "Unlabelled",
    "batch_indices",
    "batch_positions",
    "by_length",
    "chain",
    "class_indices",
    "color_jitter",
    "cutmix",
    "filled",
    "fit_standardiser",
    "fold_seed",
    "in_turn",
    "k_shot",
    "load",
    "load_preprocessor",
    "load_sentences",
    "load_text",
    "load_texts",
    "load_tokenizer",
    "load_unlabelled",
    "load_whole",
    "match_images",
    "mixup",
    "on_levels",
    "rand_augment",
    "random_crop",
    "random_flip",
    "read_sentences",
    "require_every_class",
    "resize_images",
    "shuffled_index",
    "standardise",
    "stratified_split",
    "stream",
]
