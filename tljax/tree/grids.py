"""Position tables: one vector for each cell of a grid, resized as an image."""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tljax.tree.rule import ResizeError, Rule, fresh_copy, shape_text

Grid = int | tuple[int, int]
Method = Literal["timm", "huggingface", "big_vision", "bilinear"]


def position_grid(
    source_grid: Grid | None = None,
    target_grid: Grid | None = None,
    *,
    prefix_tokens: int | tuple[int, int],
    method: Method = "timm",
) -> Rule:
    """Resizes the position table `[1, N, D]` or `[N, D]` of a vision transformer to another grid of patches.

    A grid is (height, width) in patches, or a number for a square one; None means square, of the size the
    table has. `prefix_tokens` is how many of the first rows stand for no patch (class token, registers), in
    both tables or as a pair (source, target). It has no default: 197 rows are a class token and 14 x 14
    patches, 196 are 14 x 14 patches, or a class token and 13 x 15; the table cannot tell. Prefix rows are
    copied in order; those the source lacks keep the target's values.

    The method says which library's convention to be equal to, to float32 rounding:

    - ``"timm"``: bicubic (a = -0.5) with antialiasing, half-pixel centres;
    - ``"huggingface"``: bicubic (a = -0.75) without antialiasing, half-pixel centres;
    - ``"big_vision"``: linear, corner to corner, as ``scipy.ndimage.zoom(order=1)``;
    - ``"bilinear"``: linear without antialiasing, half-pixel centres, as torch's ``interpolate``.

    Raises `ResizeError` when rows, prefix and grid do not agree, or the vectors differ in length.

    >>> rule = position_grid(target_grid=(2, 3), prefix_tokens=1, method="big_vision")
    >>> rule("pos", np.array([[9.0], [0.0], [1.0], [2.0], [3.0]]), np.zeros((7, 1)))[:, 0]
    array([9. , 0. , 0.5, 1. , 2. , 2.5, 3. ])
    """
    if method not in get_args(Method):
        raise ResizeError(f"position_grid: method={method!r}; expected one of {', '.join(get_args(Method))}")
    prefixes = (prefix_tokens, prefix_tokens) if isinstance(prefix_tokens, int) else tuple(prefix_tokens)

    def apply(name: str, source: Any, target: Any) -> np.ndarray:
        old = _layout(name, "source", source, source_grid, prefixes[0])
        new = _layout(name, "target", target, target_grid, prefixes[1])
        table = np.asarray(source).reshape(-1, source.shape[-1])
        if source.shape[-1] != target.shape[-1]:
            raise ResizeError(
                f"{name}: source {shape_text(source)} and target {shape_text(target)} differ in the vectors' length"
            )
        prefix, cells = table[: prefixes[0]], table[prefixes[0] :].reshape(*old, -1)
        if old != new:
            cells = _resized(cells.astype(np.promote_types(table.dtype, np.float32)), new, method)
        if prefixes[1] > prefixes[0]:
            why = f"{prefixes[1] - prefixes[0]} prefix tokens have no source"
            own = fresh_copy(name, target, source, why).reshape(-1, table.shape[-1])
            prefix = np.concatenate([prefix.astype(own.dtype), own[prefixes[0] : prefixes[1]]])
        kept = prefix[: prefixes[1]].astype(cells.dtype)
        return np.concatenate([kept, cells.reshape(-1, table.shape[-1])]).reshape(target.shape)

    return Rule("position_grid", apply, method)


def _layout(name: str, side: str, table: Any, grid: Grid | None, prefix: int) -> tuple[int, int]:
    """Height and width of the grid in `table`."""
    shape = np.shape(table)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
        raise ResizeError(f"{name}: a position table is [1, N, D] or [N, D]; the {side} is {shape_text(table)}")
    cells = shape[-2] - prefix
    if grid is None:
        grid = math.isqrt(max(cells, 0))
    height, width = (grid, grid) if isinstance(grid, int) else grid
    if height * width != cells or cells < 1:
        raise ResizeError(
            f"{name}: the {side} has {shape[-2]} rows, which are not {prefix} prefix tokens and a grid of "
            f"{height} x {width}; give {side}_grid=(height, width) and prefix_tokens as the model has them"
        )
    return height, width


def _resized(cells: np.ndarray, size: tuple[int, int], method: Method) -> np.ndarray:
    """`cells` `[h, w, D]` as `[*size, D]`."""
    if method == "big_vision":
        down, across = (_corner_to_corner(n, m) for n, m in zip(cells.shape, size))
        return np.einsum("ih,jw,hwd->ijd", down, across, cells).astype(cells.dtype)
    kind = {"timm": "bicubic", "huggingface": "cubic-pytorch", "bilinear": "linear"}[method]
    shape = (*size, cells.shape[-1])
    return np.asarray(jax.image.resize(jnp.asarray(cells), shape, kind, antialias=method == "timm"))


def _corner_to_corner(n: int, m: int) -> np.ndarray:
    """The matrix `[m, n]` that samples n points linearly at m places, from the first point to the last."""
    places = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    left = np.minimum(places.astype(int), max(n - 2, 0))
    weights = np.zeros((m, n))
    weights[np.arange(m), left] += 1.0 - (places - left)
    weights[np.arange(m), np.minimum(left + 1, n - 1)] += places - left
    return weights
