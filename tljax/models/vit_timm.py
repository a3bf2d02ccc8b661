"""Vision transformers in the files of timm and of DeiT's and DINOv2's authors; positions are resized as in timm."""

from tljax.models.family import Family
from tljax.models.vit import RESIZE, vit
from tljax.models.vit_files import from_timm, in_timm
from tljax.models.vit_positions import position_rules

FAMILY = Family(
    name="vit",
    build=vit,
    from_config=from_timm,
    recognise=in_timm,
    resize=RESIZE,
    regrid=position_rules("timm"),
)
