"""Looking into a model while it runs: which layers it calls, and what one of them gives.

The wrappers of `from_flax` and `from_nnx` ask here, each time they run, whether somebody wants a layer. So a `Model`
stays two pure functions, and any that calls such a wrapper inside of its own can be looked into as well.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax


class Tap:
    """What is wanted of a model, and what was found while it ran."""

    def __init__(self, *layers: str):
        self.layers = layers
        """The names of layers: those of the subtrees of parameters that they have, or would have."""
        self.shapes: dict[str, Any] = {}
        """The layers that were called, and the shapes and dtypes of what they gave at last."""
        self.outputs: dict[str, Any] = {}
        """What each of the layers that were called gave at last."""

    def sees(self, name: str, output: Any) -> bool:
        """Whether the layer called `name`, which gave `output`, is wanted."""
        # Popped first, so that the layers stand in the order in which they end.
        self.shapes.pop(name, None)
        self.shapes[name] = jax.tree.map(_spec, output)
        return name in self.layers

    def take(self, shapes: dict[str, Any], outputs: dict[str, Any]) -> None:
        """What a tap within this one found, in a model that ran in a program of its own."""
        for name, spec in shapes.items():
            self.sees(name, spec)
        self.outputs |= outputs


def _spec(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf


_ACTIVE: contextvars.ContextVar[Tap | None] = contextvars.ContextVar("tljax_tap", default=None)


def active() -> Tap | None:
    """The tap that whoever runs the model has opened."""
    return _ACTIVE.get()


@contextlib.contextmanager
def tapped(*layers: str) -> Iterator[Tap]:
    """Within, models that run tell the tap which layers they call, and leave there what `layers` give.

    >>> import jax.numpy as jnp
    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((5,), num_classes=3), jnp.ones((2, 4))
    >>> params = model.init(jax.random.key(0), x)
    >>> with tapped("backbone/block_00/dense") as tap:
    ...     _ = model.apply(params, x)
    >>> tap.outputs["backbone/block_00/dense"].shape, list(tap.shapes)
    ((2, 5), ['backbone/block_00/dense', 'backbone/block_00/Dropout_0', 'backbone/block_00', 'backbone', 'head'])
    """
    tap = Tap(*layers)
    token = _ACTIVE.set(tap)
    try:
        yield tap
    finally:
        _ACTIVE.reset(token)
