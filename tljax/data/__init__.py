"""Data sets: arrays that have been checked, readers, splits, and the order in which examples come."""

from tljax.data.arrays import Dataset, require_every_class
from tljax.data.error import DataError
from tljax.data.order import batch_indices, batch_positions, fold_seed, shuffled_index

__all__ = [
    "DataError",
    "Dataset",
    "batch_indices",
    "batch_positions",
    "fold_seed",
    "require_every_class",
    "shuffled_index",
]
