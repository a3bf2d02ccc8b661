"""How losses are held to values of other programs, and their gradients to differences."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives import Scene
from tljax.types import Batch, Output


def agrees(loss, expected, *arrays):
    """`loss(*arrays)`, a value or a list of them, is `expected`: to 1e-6 in float64, to 1e-4 in float32; compiled."""
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-4)):
        with jax.enable_x64(dtype == "float64"):
            given = [jnp.asarray(a, dtype if a.dtype.kind == "f" else "int32") for a in map(np.asarray, arrays)]
            value = jax.jit(lambda *a: jnp.stack(jax.tree.leaves(loss(*a))))(*given)
            assert value.dtype == dtype
            np.testing.assert_allclose(value, np.atleast_1d(expected), rtol=tolerance, atol=tolerance)


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


def value_of(term, streams, step=0):
    """The value and metrics of `term` for ``{stream: (logits, features, labels)}``."""

    @jax.jit
    def run(streams):
        outputs = {name: Output(s[0], s[1]) for name, s in streams.items()}
        batches = {name: Batch(s[0], s[2] if len(s) > 2 else None) for name, s in streams.items()}
        scene = Scene(outputs, batches, {}, None, jnp.int32(step), jax.random.key(0))
        value, _, metrics = term.apply(term.init(scene.key, scene), scene)
        return value, metrics

    return run({name: tuple(map(jnp.asarray, s)) for name, s in streams.items()})
