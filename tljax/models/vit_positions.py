"""How the position table of a vision transformer is resized for images of other sizes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tljax.models.vit_sizes import variant_sizes
from tljax.tree import Rule, position_grid
from tljax.tree.grids import Method
from tljax.tree.rule import ResizeError, shape_text

Sides = tuple[int, int] | None
"""Height and width of a grid in patches, where they are known."""


def position_rules(method: Method) -> Callable[[Mapping[str, Any], Any, Any], Mapping[str, Rule]]:
    """`Family.regrid` of vision transformers: `position_grid` from the grid of the file's images to that of ours.

    >>> images = [np.zeros((1, *sides, 3)) for sides in ((32, 32), (16, 48))]
    >>> str(position_rules("timm")({"variant": "ti16"}, *images)["backbone/embed/position"])
    'position_grid (timm, 2x2 to 1x3)'
    """

    def rules(arguments: Mapping[str, Any], old: Any, new: Any) -> Mapping[str, Rule]:
        patch = variant_sizes(arguments.get("variant", "ti"), arguments.get("patch", 4))["patch"]
        return {"backbone/embed/position": _between(_grid(old, patch), _grid(new, patch), method)}

    return rules


def prefixes(rows: int) -> list[int]:
    """The numbers of tokens without a patch that leave a square grid; at most one for tables of 6 rows and more.

    >>> prefixes(197), prefixes(7)
    ([1], [])
    """
    return [p for p in (1, 2, 0) if rows > p and math.isqrt(rows - p) ** 2 == rows - p]


def _grid(images: Any, patch: int) -> Sides:
    return None if images is None or len(images.shape) < 3 else (images.shape[1] // patch, images.shape[2] // patch)


def _between(old: Sides, new: Sides, method: Method) -> Rule:
    """The rule from one grid to another, with as many tokens besides the patches (0 to 2) as both tables have.

    It has work to do on tables of one shape too: 16 patches are 4 x 4 and 2 x 8.
    """

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        if old is not None and new is not None:
            before, after = (np.shape(t)[-2] - math.prod(grid) for t, grid in ((source, old), (target, new)))
            if before == after and before in (0, 1, 2):
                return position_grid(old, new, prefix_tokens=before, method=method)(name, source, target)
        raise ResizeError(
            f"{name}: {shape_text(source)} and {shape_text(target)}: the grids and the tokens besides the patches "
            "cannot be told; write resize={'**/embed/position': position_grid((height, width), (height, width), "
            "prefix_tokens=1)} with the grids of the file's images and of yours, in patches"
        )

    known = old is not None and new is not None
    detail = f"{method}, {old[0]}x{old[1]} to {new[0]}x{new[1]}" if old and new else method
    return Rule("position_grid", apply, detail, reorders=known and old != new)
