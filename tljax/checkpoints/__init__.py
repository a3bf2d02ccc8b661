"""Weight files to trees and back, in every format a pretrained model comes in."""

from tljax.checkpoints.errors import CheckpointError
from tljax.checkpoints.load import WeightFile, Weights, load_weights, open_weights, read_weights
from tljax.checkpoints.names import nest, tree_name
from tljax.checkpoints.report import LoadReport
from tljax.checkpoints.save import save_weights

__all__ = [
    "CheckpointError",
    "LoadReport",
    "WeightFile",
    "Weights",
    "load_weights",
    "nest",
    "open_weights",
    "read_weights",
    "save_weights",
    "tree_name",
]
