"""The sizes and options of BERT and its kin."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tljax.models.classifier import activation
from tljax.models.wrapping import ModelError

_POOLS = ("mean", "cls", "pooler")
STYLES: Mapping[str, Mapping[str, Any]] = {
    "bert": {"vocab": 30522, "positions": 512, "types": 2, "padding_id": 0, "epsilon": 1e-12},
    "roberta": {"vocab": 50265, "positions": 514, "types": 1, "padding_id": 1, "epsilon": 1e-5},
    "distilbert": {"vocab": 30522, "positions": 512, "types": 0, "padding_id": 0, "epsilon": 1e-12},
}
"""What each style has where nothing else is said."""
_VARIANTS: Mapping[str, tuple[str, int, int, int]] = {
    "tiny": ("bert", 128, 2, 2),
    "base": ("bert", 768, 12, 12),
    "large": ("bert", 1024, 24, 16),
    "minilm-l6": ("bert", 384, 6, 12),
    "minilm-l12": ("bert", 384, 12, 12),
    "distilbert": ("distilbert", 768, 6, 12),
    "roberta-base": ("roberta", 768, 12, 12),
    "roberta-large": ("roberta", 1024, 24, 16),
}
"""Style, width, blocks and heads."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """All that tells one encoder of the family from another; `tljax.models.bert` says what the fields mean."""

    style: str
    vocab: int
    width: int
    depth: int
    heads: int
    hidden: int
    positions: int
    types: int
    padding_id: int
    epsilon: float
    act: str
    pool: str
    pooler: bool
    normalize: bool
    dropout: float
    attention_dropout: float


def sizes_of(variant: str = "base", **options: Any) -> Sizes:
    """The sizes of a variant, with `options` as `tljax.models.bert` takes them; None stands for the default.

    Raises `ModelError` for options that are none or contradict one another.

    >>> sizes_of("minilm-l6", depth=3).hidden, sizes_of("roberta-base").padding_id
    (1536, 1)
    """
    given = {name: value for name, value in options.items() if value is not None}
    if variant not in _VARIANTS:
        raise ModelError(f"bert: variant={variant!r}; expected {', '.join(map(repr, _VARIANTS))}")
    chosen: dict[str, Any] = dict(zip(("style", "width", "depth", "heads"), _VARIANTS[variant])) | given
    if chosen["style"] not in STYLES:
        raise ModelError(f"bert: style={chosen['style']!r}; expected {', '.join(map(repr, STYLES))}")
    chosen = {
        "hidden": 4 * chosen["width"],
        "pool": "mean" if variant.startswith("minilm") else "pooler",
        "act": "gelu",
        "normalize": False,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        **STYLES[chosen["style"]],
        **chosen,
    }
    sizes = Sizes(**({"pooler": chosen["style"] != "distilbert" or chosen["pool"] == "pooler"} | chosen))
    _check(sizes)
    return sizes


def _check(sizes: Sizes) -> None:
    if sizes.width % sizes.heads:
        raise ModelError(f"bert: width={sizes.width} is not a multiple of heads={sizes.heads}")
    if sizes.pool not in _POOLS:
        raise ModelError(f"bert: pool={sizes.pool!r}; expected {', '.join(map(repr, _POOLS))}")
    if sizes.pool == "pooler" and not sizes.pooler:
        raise ModelError("bert: pool='pooler' needs pooler=True; or write pool='cls' or 'mean'")
    if sizes.style == "distilbert" and sizes.types:
        raise ModelError(f"bert: types={sizes.types}, but style='distilbert' has no token types")
    activation(sizes.act)
