"""From a selector to the leaves that get adapters: their layouts, their own random keys, their ranks and scales."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.peft.adapter import PeftError
from tljax.peft.infer import infer
from tljax.peft.layout import Layout
from tljax.tree import named_leaves, select
from tljax.types import Array, Key, Params, is_state


class Site(NamedTuple):
    """A leaf that gets an adapter."""

    name: str
    leaf: Array
    layout: Layout

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The sizes of the stacked, input and output axes."""
        return self.layout.parts(self.leaf.shape)

    @property
    def fan(self) -> tuple[int, int]:
        """The number of inputs and of outputs of one layer."""
        return self.layout.fan(self.leaf.shape)

    def key(self, key: Key) -> Key:
        """The leaf's own random key: the same whatever else is selected."""
        return jax.random.fold_in(key, zlib.crc32(self.name.encode()))


def learnable(params: Params, where: Any) -> dict[str, Any]:
    """The selected leaves by name.

    Raises `NoMatchError` where a part of `where` selects nothing, `PeftError` for a leaf that cannot learn.

    >>> list(learnable({"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}, "**/bias"))
    ['a/bias']
    """
    leaves = named_leaves(params)
    chosen = {name: leaves[name] for name in select(where).names(params)}
    for name, leaf in chosen.items():
        dtype = jnp.result_type(leaf)
        if is_state(name) or not jnp.issubdtype(dtype, jnp.floating):
            what = "a running statistic" if is_state(name) else f"of dtype {dtype}"
            raise PeftError(f"{name!r} is {what} and cannot learn; leave it out: & ~select({name!r})")
    return chosen


def sites(params: Params, where: Any, layouts: Mapping[Any, Layout] | None) -> list[Site]:
    """The selected leaves with their layouts, all of them matrices, in natural order.

    `layouts` tells, by selector, the layouts that cannot be inferred, of selected leaves or others; the last that
    matches holds.

    Raises as `learnable` does, and `PeftError` for a bias or the scale of a norm, or a layout that is in doubt.

    >>> [site] = sites({"conv": {"kernel": jnp.ones((3, 3, 4, 8))}}, "**/kernel", None)
    >>> site.layout.kind, site.fan
    ('conv', (36, 8))
    """
    chosen = learnable(params, where)
    shapes = {name: tuple(np.shape(leaf)) for name, leaf in named_leaves(params).items()}
    told = by_selector(layouts or {}, shapes, None)
    found = []
    for name, leaf in chosen.items():
        layout = told[name] or infer(name, shapes)
        if layout.kind == "vector":
            raise PeftError(
                f"{name!r} {list(shapes[name])} is no matrix; leave it out, as with '**/kernel', or train it whole: "
                f"full(params, {name!r})"
            )
        if layout.ins < 1 or len(shapes[name]) <= layout.stack + layout.ins:
            raise PeftError(f"layouts: {layout} needs more axes than {name!r} {list(shapes[name])} has")
        found.append(Site(name, leaf, layout))
    return found


def by_selector(values: Any, names: Sequence[str] | Mapping[str, Any], default: Any) -> dict[str, Any]:
    """The value for each of `names`: `values` itself, or of a mapping by selector the last that matches, or `default`.

    Raises `NoMatchError` for a selector that matches none of `names`.

    >>> by_selector({"**/key": 4}, ["a/query", "a/key"], 8), by_selector(2, ["a"], 8)
    ({'a/query': 8, 'a/key': 4}, {'a': 2})
    """
    if not isinstance(values, Mapping):
        return dict.fromkeys(names, values)
    found = dict.fromkeys(names, default)
    tree = dict.fromkeys(names, 0)
    for where, value in values.items():
        for name in select(where).names(tree):
            found[name] = value
    return found


def ranks(rank: Any, found: Sequence[Site], default: int) -> dict[str, int]:
    """The rank for each site.

    Raises `PeftError` unless it is a whole number between 1 and what the matrix allows.

    >>> ranks(4, [Site("w", jnp.ones((8, 3)), Layout())], 8)
    Traceback (most recent call last):
    tljax.peft.adapter.PeftError: rank 4 of 'w' ...: a matrix of 8 inputs and 3 outputs has at most rank 3...
    """
    chosen = by_selector(rank, [site.name for site in found], default)
    for site in found:
        r, most = chosen[site.name], min(site.fan)
        if not isinstance(r, int | np.integer) or isinstance(r, bool) or r < 1:
            raise PeftError(f"rank of {site.name!r} must be a whole number, 1 or more; found {r!r}")
        if r > most:
            raise PeftError(
                f"rank {r} of {site.name!r} is too large: a matrix of {site.fan[0]} inputs and {site.fan[1]} outputs "
                f"has at most rank {most}. Give it its own: rank={{'**': {r}, {site.name!r}: {most}}}"
            )
    return chosen


def scales(alpha: Any, chosen: Mapping[str, int], rslora: bool, default: float) -> dict[str, Array]:
    """alpha / rank, or alpha / sqrt(rank), for each leaf of `chosen` ranks, as a float32 scalar.

    >>> float(scales(8.0, {"w": 4}, True, 8.0)["w"])
    4.0
    """
    alphas = by_selector(alpha, chosen, default)
    return {name: jnp.asarray(alphas[name] / (r**0.5 if rslora else r), jnp.float32) for name, r in chosen.items()}
