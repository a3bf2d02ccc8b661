"""A leaf of its own: heads, norms, biases (BitFit), whatever is trained whole.

the value itself
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tljax.peft.adapter import Adapter, Adapters, Shared
from tljax.peft.choose import learnable
from tljax.peft.factors import Factored
from tljax.peft.infer import VECTOR
from tljax.types import Array, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Full(Adapter):
    """The value in place of the weight.

    >>> Full(jnp.ones(2)).merge(jnp.zeros(2, jnp.bfloat16), {})
    Array([1, 1], dtype=bfloat16)
    """

    kind: ClassVar[str] = "full"
    value: Array
    """Of the weight's shape."""

    def factor(self, weight: Array, shared: Shared) -> Factored:
        return Factored(self.value.astype(weight.dtype), layout=VECTOR)


def full(params: Params, where: Any) -> Adapters:
    """Copies of the selected leaves, to be trained whole.

    Raises `NoMatchError` where a part of `where` selects nothing, `PeftError` for what cannot learn: running statistics
    and integers.

    >>> full({"head": {"bias": jnp.zeros(2)}}, "head/**")["head/bias"].value.shape
    (2,)
    """
    return {name: Full(jnp.array(leaf, copy=True)) for name, leaf in learnable(params, where).items()}
