"""Models as pure functions: those of the catalogue, and anybody's Flax modules."""

from tljax.models.catalog import CATALOG, build
from tljax.models.export import export
from tljax.models.flax_module import from_flax
from tljax.models.lenet import lenet
from tljax.models.mlp import mlp
from tljax.models.nnx_module import from_nnx
from tljax.models.pretrained import Pretrained, load_pretrained
from tljax.models.resnet import resnet
from tljax.models.vit import vit
from tljax.models.wrapping import ModelError

__all__ = [
    "CATALOG", "ModelError", "Pretrained", "build", "export", "from_flax", "from_nnx", "lenet", "load_pretrained",
    "mlp", "resnet", "vit",
]  # fmt: skip
