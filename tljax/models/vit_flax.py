"""Vision transformers in the files of big_vision and Google's ViT; positions are resized as in big_vision."""

from tljax.models.family import Family, nothing
from tljax.models.vit import RESIZE, vit
from tljax.models.vit_files import in_flax
from tljax.models.vit_positions import position_rules

FAMILY = Family(
    name="vit",
    build=vit,
    from_config=nothing,
    recognise=in_flax,
    resize=RESIZE,
    regrid=position_rules("big_vision"),
)
