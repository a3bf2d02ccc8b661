"""What distinguishes one vision transformer from another."""

import dataclasses
import re
from typing import Any

from tljax.models.wrapping import ModelError

VARIANTS = {
    "ti": (192, 12, 3),
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "h": (1280, 32, 16),
    "g": (1536, 40, 24),
}
"""Width, blocks and heads; "g" is DINOv2's."""
POOLS = ("cls", "mean", "cls+mean", "cls+distillation", "mean_before_norm")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """All options of a vision transformer; `tljax.models.vit.vit` says what they mean."""

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    pool: str = "cls"
    dropout: float = 0.0
    act: str = "gelu"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    distillation: bool = False
    token_positions: bool = True
    registers: int = 0
    mask_token: bool = False
    layer_scale: float | None = None
    pre_norm: bool = False
    pre_logits: bool = False
    projection: int | None = None
    gated: bool = False

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ModelError(
                f"vit: heads={self.heads}; names and shapes do not tell the number of attention heads of a vision "
                f"transformer of width {self.width}: write heads="
            )
        if self.width % self.heads:
            raise ModelError(f"vit: width={self.width} is not a multiple of heads={self.heads}")
        if self.pool not in POOLS:
            raise ModelError(f"vit: pool={self.pool!r}; expected 'cls' or 'mean', or {', '.join(map(repr, POOLS[2:]))}")
        if self.pool == "cls+distillation" and not self.distillation:
            raise ModelError("vit: pool='cls+distillation' needs distillation=True")
        if self.pool == "mean" and (self.distillation or self.registers):
            raise ModelError("vit: pool='mean' has no tokens besides the patches; pool='cls+mean' has")

    @property
    def positions(self) -> int:
        """Rows of the position table that stand for no patch."""
        return self.tokens if self.token_positions else 0

    @property
    def tokens(self) -> int:
        """Class and distillation token."""
        return (self.pool != "mean") + self.distillation

    @property
    def kind(self) -> str:
        """What such a model is called."""
        if self.pre_norm:
            return "clip"
        return "deit" if self.distillation else "dinov2" if self.layer_scale is not None else "vit"

    @property
    def named(self) -> str | None:
        """The variant of this width, depth, heads and hidden width, if there is one."""
        return named(self.width, self.depth, self.heads) if self.hidden == 4 * self.width else None

    @property
    def mlp_ratio(self) -> int | None:
        """What DINOv2's config.json calls so, a whole number, if there is one."""
        ratio = round((1.5 if self.gated else 1) * self.hidden / self.width)
        found = gated_hidden(self.width, ratio) if self.gated else ratio * self.width
        return ratio if found == self.hidden else None


def gated_hidden(width: int, mlp_ratio: float) -> int:
    """The hidden width of DINOv2's gated MLP: two thirds of the ungated one's, rounded up to a multiple of 8.

    >>> gated_hidden(1536, 4)
    4096
    """
    return (int(int(width * mlp_ratio) * 2 / 3) + 7) // 8 * 8


def named(width: int, depth: int, heads: int) -> str | None:
    """The variant of these sizes, or None.

    >>> named(384, 12, 6)
    's'
    """
    return next((name for name, sizes in VARIANTS.items() if sizes == (width, depth, heads)), None)


def variant_sizes(variant: str, patch: int) -> dict[str, Any]:
    """Patch, width, depth and heads of `variant`, which may name its patch.

    Raises `ModelError` for a variant that is none.

    >>> variant_sizes("s16", 4)
    {'patch': 16, 'width': 384, 'depth': 12, 'heads': 6}
    """
    found = re.fullmatch(r"([a-z]+)(\d*)", variant)
    if not found or found[1] not in VARIANTS:
        raise ModelError(f"vit: variant={variant!r}; expected {', '.join(VARIANTS)}, or with the patch, as 's16'")
    width, depth, heads = VARIANTS[found[1]]
    return {"patch": int(found[2] or patch), "width": width, "depth": depth, "heads": heads}
