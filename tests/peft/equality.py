"""Compares `factored` with `merge`, in values and in the gradient of every adapter leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tljax as tl
from tljax.peft import factored, merge
from tljax.tree import map_named


def stirred(adapters: Any, seed: int = 0, size: float = 0.3) -> Any:
    """`adapters` as after some training: noise on every leaf that learns."""
    rng = np.random.default_rng(seed)

    def one(name: str, leaf: Any) -> Any:
        noise = jnp.asarray(size * rng.normal(size=np.shape(leaf)), jnp.float32).astype(leaf.dtype)
        return leaf if "constants" in name.split("/") else leaf + noise

    return map_named(one, adapters)


def both_ways(apply: Any, params: Any, adapters: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """(outputs, gradients) of a fixed random projection of all floating outputs: merged, and factored."""

    def run(function: Any) -> Any:
        def loss(adapters: Any, arrays: Any) -> Any:
            outs = jax.tree.leaves(function(adapters, *arrays))
            outs = [out for out in outs if isinstance(out, jax.Array) and jnp.issubdtype(out.dtype, jnp.floating)]
            keys = jax.random.split(jax.random.key(7), len(outs))
            parts = [jnp.vdot(jax.random.normal(k, y.shape, y.dtype), y) for k, y in zip(keys, outs)]
            return sum(part.astype(float) for part in parts), outs

        return jax.value_and_grad(loss, has_aux=True)

    def outcomes(adapters: Any, arrays: Any) -> Any:
        merged = run(lambda a, *args: apply(merge(params, a), *args, **kwargs))(adapters, arrays)
        split = run(lambda a, *args: factored(apply)(params, a, *args, **kwargs))(adapters, arrays)
        return [(outs, grads) for (_, outs), grads in (merged, split)]

    return tuple(jax.jit(outcomes)(adapters, args))


def doubled(x: jax.Array) -> jax.Array:
    """In float64, where it is float32."""
    return x.astype(jnp.float64) if x.dtype == jnp.float32 else x


def assert_equal(apply: Any, params: Any, adapters: Any, *args: Any, tol: float = 1e-5, **kwargs: Any) -> None:
    """Both ways agree to `tol` of the largest number of each output and of each leaf's gradient.

    Gradients below a hundredth of the largest of all count as so large: some are zero but for rounding, as of a bias
    before a normalisation.
    """
    (outs, grads), (outs_f, grads_f) = both_ways(apply, params, adapters, *args, **kwargs)
    assert jax.tree.structure(outs) == jax.tree.structure(outs_f)
    for want, got in zip(outs, outs_f):
        close("output", got, want, tol)
    named, named_f = tl.tree.named_leaves(grads), tl.tree.named_leaves(grads_f)
    largest = max(float(jnp.max(jnp.abs(x), initial=0)) for x in named.values())
    assert largest > 0
    for name, got in named_f.items():
        close(name, got, named[name], tol, 1e-2 * largest)


def close(name: str, got: Any, want: Any, tol: float, least: float = 1e-6) -> None:
    assert got.dtype == want.dtype, name
    assert got.shape == want.shape, name
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert np.all(np.isfinite(want)), name
    error = np.max(np.abs(got - want), initial=0) / max(np.max(np.abs(want), initial=0), least)
    assert error <= tol, f"{name}: {error:.2e} of the largest"
