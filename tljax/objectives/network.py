"""Networks that terms own: discriminators and second heads, which learn with the model and carry statistics."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from tljax.models import from_flax
from tljax.objectives.mean import widened
from tljax.objectives.term import Owned
from tljax.tree import map_named, merge
from tljax.types import Array, Key, Model, TljaxError, is_state


class NetworkError(TljaxError):
    """A network that a term cannot own, or that gives what the term cannot use."""


class Network(NamedTuple):
    """A network and how errors name it."""

    model: Model
    name: str

    def init(self, key: Key, x: Any) -> Owned:
        """Its parameters, and its statistics as state, for inputs like `x`: anything with a shape and a dtype."""
        variables = self.model.init(key, x)
        params = map_named(lambda name, leaf: None if is_state(name) else leaf, variables)
        return Owned(params, map_named(lambda name, leaf: leaf if is_state(name) else None, variables))

    def run(self, owned: Owned, x: Array, outputs: int, *, key: Key, train: bool = True) -> tuple[Array, Any]:
        """What it gives for `x` `[B, D]`, as floats `[B, outputs]`, and its next state.

        Raises `NetworkError` where it gives another shape.
        """
        found = self.model.apply(merge(owned.params, owned.state), x, train=train, key=key)
        if found.logits.shape != (x.shape[0], outputs):
            raise NetworkError(
                f"{self.name} must give [B, {outputs}] for [B, D]; found {list(found.logits.shape)} for {list(x.shape)}"
            )
        return widened(found.logits), owned.state if found.stats is None else found.stats


def network(given: nn.Module | Model | None, default: nn.Module, name: str) -> Network:
    """The network that a user gave, a Linen module or a model of this library; `default` where it is None.

    Raises `NetworkError` for anything else.

    >>> network(None, nn.Dense(1), "the discriminator of dann()").model.name
    'Dense'
    """
    chosen = default if given is None else given
    if isinstance(chosen, Model):
        return Network(chosen, name)
    if not isinstance(chosen, nn.Module):
        raise NetworkError(f"{name} is a Flax module, as nn.Dense(1), or a model of tljax; found {chosen!r:.60}")
    return Network(from_flax(chosen), name)


def torch_dense(x: Array, width: int, name: str) -> Array:
    """A dense layer that begins as torch's: weights and biases uniform in ±1/√D. For use in a Linen module."""
    bound = 1 / math.sqrt(x.shape[-1])

    def start(key: Key, shape: Any, dtype: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(width, kernel_init=start, bias_init=start, param_dtype=x.dtype, name=name)(x)
