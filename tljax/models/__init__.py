"""Models as pure functions: those of the catalogue, and anybody's Flax modules."""

from tljax.models.bert import bert
from tljax.models.bert_pooling import pooling
from tljax.models.bottleneck import with_bottleneck
from tljax.models.catalog import CATALOG, build
from tljax.models.convnext import convnext
from tljax.models.export import export
from tljax.models.flax_module import from_flax
from tljax.models.imagenet_resnet import imagenet_resnet
from tljax.models.lenet import lenet
from tljax.models.max_pooling import max_pool
from tljax.models.mlp import mlp
from tljax.models.mobilenet import mobilenet_v1
from tljax.models.nnx_module import from_nnx
from tljax.models.pretrained import Pretrained, load_pretrained
from tljax.models.resnet import resnet
from tljax.models.vit import vit
from tljax.models.wide_resnet import wide_resnet
from tljax.models.wrapping import ModelError

__all__ = [
    "CATALOG", "ModelError", "Pretrained", "bert", "build", "convnext", "export", "from_flax", "from_nnx",
    "imagenet_resnet", "lenet", "load_pretrained", "max_pool", "mlp", "mobilenet_v1", "pooling", "resnet", "vit",
    "wide_resnet", "with_bottleneck",
]  # fmt: skip
