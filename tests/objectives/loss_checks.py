"""How losses are held to values of other programs, and their gradients to differences."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives import Scene
from tljax.types import Batch, Output


def agrees(loss, expected, *arrays):
    """`loss(*arrays)` is `expected`, to 1e-6 in float64 and to 1e-4 in float32, compiled."""
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-4)):
        with jax.enable_x64(dtype == "float64"):
            given = [jnp.asarray(a, dtype if a.dtype.kind == "f" else "int32") for a in map(np.asarray, arrays)]
            value = jax.jit(loss)(*given)
            assert value.dtype == dtype
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def slope_agrees(loss, x, still=None, *, step=1e-6, tolerance=1e-7):
    """The gradient of `loss` at `x` is the central difference, in float64, along three random directions; of `still`,
    in which everything that is to carry no gradient is fixed, where that is given."""
    with jax.enable_x64(True):
        x = jnp.asarray(x, "float64")
        run = jax.jit(still or loss)
        slope = jax.jit(jax.grad(loss))(x)
        for direction in np.random.default_rng(0).normal(size=(3, *x.shape)):
            along = (run(x + step * direction) - run(x - step * direction)) / (2 * step)
            np.testing.assert_allclose(jnp.sum(slope * direction), along, rtol=1e-6, atol=tolerance)


def value_of(term, streams, step=0, seed=0, **given):
    """The value and metrics of `term` for ``{stream: (logits, features, labels)}``."""
    outputs = {name: Output(jnp.asarray(s[0]), jnp.asarray(s[1])) for name, s in streams.items()}
    batches = {name: Batch(jnp.zeros(len(s[0])), s[2] if len(s) > 2 else None) for name, s in streams.items()}
    scene = Scene(outputs, batches, {}, None, jnp.int32(step), jax.random.key(seed), **given)
    value, _, metrics = term.apply(term.init(jax.random.key(0), scene), scene)
    return value, metrics
