"""Vision transformers in the files of timm and of DeiT's and DINOv2's authors; positions are resized as in timm."""

from tljax.models.family import Family
from tljax.models.vit import RESIZE, vit
from tljax.models.vit_files import from_timm, in_timm, square_position_grid

FAMILY = Family(
    name="vit",
    build=vit,
    from_config=from_timm,
    recognise=in_timm,
    resize=RESIZE | {"backbone/embed/position": square_position_grid("timm")},
)
