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

    def __init__(self, layer: str | None):
        self.layer = layer
        """The name of a layer: that of the subtree of parameters that the layer has, or would have."""
        self.shapes: dict[str, Any] = {}
        """The layers that were called, and the shapes and dtypes of what they gave at last."""
        self.output: Any = None
        """What the layer gave when it was last called; None where it was not."""

    def sees(self, name: str, output: Any) -> bool:
        """Whether the layer called `name`, which gave `output`, is the wanted one."""
        # Popped first, so that the layers stand in the order in which they end.
        self.shapes.pop(name, None)
        self.shapes[name] = jax.tree.map(_spec, output)
        return name == self.layer


def _spec(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf


_ACTIVE: contextvars.ContextVar[Tap | None] = contextvars.ContextVar("tljax_tap", default=None)


def active() -> Tap | None:
    """The tap that whoever runs the model has opened."""
    return _ACTIVE.get()


@contextlib.contextmanager
def tapped(layer: str | None = None) -> Iterator[Tap]:
    """Within, models that run tell the tap which layers they call, and leave there what `layer` gives.

    >>> import jax.numpy as jnp
    >>> from tljax.models.mlp import mlp
    >>> model, x = mlp((5,), num_classes=3), jnp.ones((2, 4))
    >>> params = model.init(jax.random.key(0), x)
    >>> with tapped("backbone/block_00/dense") as tap:
    ...     _ = model.apply(params, x)
    >>> tap.output.shape, list(tap.shapes)
    ((2, 5), ['backbone/block_00/dense', 'backbone/block_00/Dropout_0', 'backbone/block_00', 'backbone', 'head'])
    """
    tap = Tap(layer)
    token = _ACTIVE.set(tap)
    try:
        yield tap
    finally:
        _ACTIVE.reset(token)
