"""IA3: learned factors on what a layer puts out (attention keys and values), or takes in (feedforward).

    y = (x W + c) * l,  which scales the bias too;    y = (x * l) W + c

One `l` scales a kernel and its bias, so it stands under ``shared/`` and both read it there.

Reference: Liu et al., Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning,
arXiv 2205.05638.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, PeftError, Shared
from tljax.peft.choose import Site, sites
from tljax.peft.factors import Factored, wide
from tljax.peft.infer import VECTOR
from tljax.peft.layout import Layout
from tljax.tree import named_leaves
from tljax.types import Array, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Adapter):
    """The weight times factors, along its outputs or its inputs.

    >>> Scale(jnp.array([1.0, 2.0]), "in").merge(jnp.ones((2, 3)), {})[1]
    Array([2., 2., 2.], dtype=float32)
    """

    kind: ClassVar[str] = "ia3"
    value: Array | None
    """`[stack..., outs...]` or `[stack..., ins...]`; 1 in the axes of a convolution's window. None: see `name`."""
    side: str = dataclasses.field(default="out", metadata={"static": True})
    """``"in"`` or ``"out"``."""
    layout: Layout = dataclasses.field(default=Layout(), metadata={"static": True})
    name: str = dataclasses.field(default="", metadata={"static": True})
    """Where the factors stand among the shared arrays, when `value` is None."""

    def factors(self, shared: Shared) -> Array:
        """`value`, its own or the shared one, in float32.

        >>> Scale(None, name="shared/ia3/key").factors({"shared/ia3/key": jnp.ones(2)})
        Array([1., 1.], dtype=float32)
        """
        return wide(shared[self.name] if self.value is None else self.value)

    def factor(self, weight: Array, shared: Shared) -> Factored:
        value = self.factors(shared)
        if self.layout.kind == "vector":  # of a convolution in Equinox, the bias has axes for the window
            return Factored((wide(weight) * value.reshape(weight.shape)).astype(weight.dtype), layout=self.layout)
        if self.side == "out":
            return Factored(weight, outs_scale=value, layout=self.layout)
        return Factored(weight, ins_scale=value, layout=self.layout)


def ia3(params: Params, where: Any, feedforward: Any = (), *, layouts: Mapping[Any, Layout] | None = None) -> Adapters:
    """IA3 with all factors 1.

    Args:
        where: kernels whose outputs are scaled, with the biases beside them; an empty list for none.
        feedforward: kernels whose inputs are scaled; empty for none. A convolution scales its channels; one in groups
            scales the channels of all groups alike.
        layouts: as of `lora`.

    Raises as `lora` does, and `PeftError` for a leaf selected both ways.

    >>> base = {"key": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}, "mlp": {"kernel": jnp.ones((6, 4))}}
    >>> {name: jnp.shape(x.value) for name, x in ia3(base, (), "mlp/kernel").items()}
    {'mlp/kernel': (6,)}
    >>> list(ia3(base, "key/kernel"))
    ['shared/ia3/key', 'key/kernel', 'key/bias']
    """
    adapters: Adapters = {}
    names = set(named_leaves(params))
    for site in sites(params, where, layouts):
        adapters |= _outputs(site, names)
    for site in sites(params, feedforward, layouts):
        if site.name in adapters:
            raise PeftError(f"{site.name!r} is selected for its outputs and, by feedforward, for its inputs")
        stack, ins, _ = site.parts
        window = (1,) * (len(ins) - 1) if site.layout.kind == "conv" else ()
        shape = ins if not window else (ins[0], *window) if site.layout.transposed else (*window, ins[-1])
        adapters[site.name] = Scale(jnp.ones(stack + shape, jnp.float32), "in", site.layout)
    return adapters


def _outputs(site: Site, names: set[str]) -> Adapters:
    above, _, _ = site.name.rpartition("/")
    bias = f"{above}/bias".lstrip("/")
    stack, _, outs = site.parts
    value = jnp.ones(stack + outs, jnp.float32)
    if bias not in names:
        return {site.name: Scale(value, "out", site.layout)}
    both = f"shared/ia3/{above or site.name}"
    return {
        both: value,
        site.name: Scale(None, "out", site.layout, both),
        bias: Scale(None, "out", VECTOR, both),
    }
