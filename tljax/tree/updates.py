"""What TIES and DARE do to updates, the differences ``tuned - base``: trim, elect a sign, drop.

Updates are dicts of arrays by name, one dict for each model: a whole model's, or one adapter's.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from tljax.types import Array, Key

Updates = Mapping[str, Array]


def trim(updates: Updates, density: float) -> dict[str, Array]:
    """`updates` with all but their largest elements set to 0, counted over all arrays together.

    ``int(density * n)`` of the n elements stay, at least one, and whatever is as large as the smallest of them. The
    threshold is exact: 31 bisections of its bits, each of which counts; nothing is sorted or put together.

    >>> trim({"a": jnp.array([1.0, -5.0]), "b": jnp.array([[3.0, 0.5]])}, 0.5)["b"]
    Array([[3., 0.]], dtype=float32)
    """
    size = sum(update.size for update in updates.values())
    count = jnp.int32(max(1, int(density * size + 1e-6)))
    threshold = _kth_largest(list(updates.values()), count)
    return {name: jnp.where(jnp.abs(u) >= threshold, u, jnp.zeros_like(u)) for name, u in updates.items()}


def elect(models: Sequence[Updates]) -> dict[str, Array]:
    """The mean, element by element, of the updates that have the sign of their sum; zeros have no part in it.

    Where the sum is 0, the sign is that of the majority of all elements.

    Reference: Yadav et al. 2023, arXiv:2306.01708.

    >>> elect([{"a": jnp.array([1.0, -2.0, 0.0])}, {"a": jnp.array([3.0, 1.0, 4.0])}])["a"]
    Array([ 2., -2.,  4.], dtype=float32)
    """
    signs = {name: jnp.sign(sum(model[name] for model in models)) for name in models[0]}
    majority = jnp.sign(sum(jnp.sum(sign.astype(jnp.float32)) for sign in signs.values()))
    elected = {}
    for name, sign in signs.items():
        sign = jnp.where(sign == 0, majority.astype(sign.dtype), sign)
        agree = [model[name] * sign > 0 for model in models]
        total = sum(jnp.where(keep, model[name], jnp.zeros_like(sign)) for keep, model in zip(agree, models))
        voters = sum(keep.astype(sign.dtype) for keep in agree)
        elected[name] = total / jnp.maximum(voters, jnp.ones_like(voters))
    return elected


def drop(key: Key, updates: Updates, rate: float) -> dict[str, Array]:
    """`updates` with each element set to 0 with probability `rate`, the others divided by ``1 - rate``.

    Reference: Yu et al. 2024, arXiv:2311.03099 (DARE).

    >>> drop(jax.random.key(0), {"a": jnp.ones(4)}, 0.5)["a"]
    Array([0., 2., 2., 2.], dtype=float32)
    """
    dropped = {}
    for i, (name, update) in enumerate(updates.items()):
        keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - rate, update.shape)
        dropped[name] = jnp.where(keep, update / (1 - rate), jnp.zeros_like(update))
    return dropped


@jax.jit
def _kth_largest(arrays: Sequence[Array], k: Array) -> Array:
    """The k-th largest magnitude in `arrays`.

    The bits of a float that is not negative, read as an integer, are in the order of the floats. So the answer is the
    largest such integer that k elements reach, found from its highest bit down.
    """
    dtype = jnp.result_type(*arrays)
    bits = jnp.finfo(dtype).bits
    integer = jnp.dtype(f"int{bits}")
    found = [jax.lax.bitcast_convert_type(jnp.abs(a).astype(dtype), integer) for a in arrays]

    def narrow(i: Array, low: Array) -> Array:
        candidate = low | jnp.left_shift(jnp.ones((), integer), (bits - 2 - i).astype(integer))
        reached = sum(jnp.sum(a >= candidate) for a in found)
        return jnp.where(reached >= k, candidate, low)

    lowest = jax.lax.fori_loop(0, bits - 1, narrow, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(lowest, dtype)
