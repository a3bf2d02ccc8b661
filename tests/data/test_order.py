"""The data order: a permutation for every size, uniform as far as chi-square can see, exact at any step."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.data import DataError, batch_indices, batch_positions, fold_seed, shuffled_index

_shuffled = jax.jit(shuffled_index)
_positions = jax.jit(batch_positions, static_argnums=1)
_draw = {
    n: jax.jit(jax.vmap(lambda seed, step, size, n=n: batch_indices(seed, step, n, size), in_axes=(None, 0, None)))
    for n in (1, 7, 32)
}


def _epochs(size: int, epochs: int, seed: int = 7) -> np.ndarray:
    """`[epochs, size]`: the order of every epoch."""
    epoch = np.repeat(np.arange(epochs, dtype=np.uint32), size)
    offset = np.tile(np.arange(size, dtype=np.int32), epochs)
    return np.asarray(_shuffled(np.uint32(seed), epoch, offset, size)).reshape(epochs, size)


def _excess(observed: np.ndarray, freedom: int) -> float:
    """Chi-square against the uniform distribution, in standard deviations (Wilson and Hilferty's normal form)."""
    expected = observed.mean()
    statistic = ((observed - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


def test_every_small_size_gives_permutations() -> None:
    # One call for all sizes 1 .. 400, three epochs each: `size` is an array like any other argument.
    size = np.concatenate([np.full(n, n) for n in range(1, 401)]).astype(np.int32)
    offset = np.concatenate([np.arange(n) for n in range(1, 401)]).astype(np.int32)
    for epoch in (0, 1, 2**32 - 1):
        index = np.asarray(_shuffled(3, np.full_like(size, epoch, np.uint32), offset, size))
        assert np.all(index >= 0)
        np.testing.assert_array_equal(np.lexsort((index, size)), np.argsort(size * 1000 + index))
        starts = np.concatenate([[0], np.cumsum(np.arange(1, 401))])
        for n in range(1, 401):
            np.testing.assert_array_equal(np.sort(index[starts[n - 1] : starts[n]]), np.arange(n))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [1023, 1024, 1025, 60_000, 2**16 - 1, 2**16, 2**16 + 1, 99_856, 316**2 + 1, 2**20])
def test_larger_sizes_give_permutations(size: int) -> None:
    index = np.asarray(_shuffled(1, 5, np.arange(size, dtype=np.int32), size))
    assert np.array_equal(np.bincount(index, minlength=size), np.ones(size))


@pytest.mark.parametrize(
    "size",
    [
        2**31 - 1,
        46_340**2 + 1,
        *(
            pytest.param(size, marks=pytest.mark.slow)
            for size in (2**31 - 2, 2**30, 46_340**2, 46_340**2 - 1, 46_341 * 46_340)
        ),
    ],
)
def test_the_largest_sizes_stay_in_range_and_do_not_collide(size: int) -> None:
    rng = np.random.default_rng(size)
    ends = np.concatenate([np.arange(50_000), np.arange(size - 50_000, size)])
    offset = np.unique(np.concatenate([ends, rng.integers(0, size, 200_000)])).astype(np.int32)
    index = np.asarray(_shuffled(1, 5, offset, size))
    assert index.min() >= 0
    assert index.max() < size
    assert len(np.unique(index)) == len(offset)
    # A uniform sample: mean and the 16 equal parts of the range.
    assert abs(index.mean() / size - 0.5) < 5 * math.sqrt(1 / 12 / len(index))
    parts = np.bincount((index.astype(np.int64) * 16 // size), minlength=16)
    assert abs(_excess(parts, 15)) < 5


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_order_of_a_small_set_is_as_likely(size: int) -> None:
    orders = _epochs(size, 60_000)
    code = (orders * size ** np.arange(size)).sum(1)
    wanted = [sum(v * size**i for i, v in enumerate(p)) for p in itertools.permutations(range(size))]
    counts = np.array([np.sum(code == c) for c in wanted])
    assert counts.sum() == 60_000
    assert counts.min() > 0
    assert _excess(counts, math.factorial(size) - 1) < 4


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [7, 8, 10, 16, 17, 32, 64, 100, 256])
def test_places_and_pairs_are_uniform_over_epochs(size: int) -> None:
    orders = _epochs(size, 20_000)
    # Where the first, the second, a middle and the last example of an epoch come from.
    for place in (0, 1, size // 2, size - 1):
        assert abs(_excess(np.bincount(orders[:, place], minlength=size), size - 1)) < 5
    # The step from one example to the next, modulo the size: 1 .. size-1, all alike, for three distances.
    for apart in (1, 2, math.isqrt(size - 1) + 1):
        step = (orders[:, apart] - orders[:, 0]) % size
        assert np.all(step > 0)
        assert abs(_excess(np.bincount(step, minlength=size)[1:], size - 2)) < 5


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [1000, 1024, 1797, 4096, 60_000])
def test_no_serial_correlation_within_an_epoch(size: int) -> None:
    for order in _epochs(size, 4).astype(np.float64):
        for lag in (1, 2, 31, 32, 64, math.isqrt(size - 1) + 1):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 5 / math.sqrt(size - lag)
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 5 / math.sqrt(size)


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    orders = [_epochs(1024, 3, seed) for seed in (0, 1, 2, 2**31, 2**32 - 1, 0x9E3779B9)]
    orders = np.concatenate(orders).astype(np.float64)
    correlations = np.corrcoef(orders) - np.eye(len(orders))
    assert np.abs(correlations).max() < 5 / math.sqrt(1024)
    # Two permutations agree in about one place (Poisson).
    assert max(np.sum(a == b) for a, b in itertools.combinations(orders, 2)) < 9


@pytest.mark.slow
def test_the_order_is_the_one_of_earlier_versions() -> None:
    # A change here breaks the exact resume of every run in progress.
    assert batch_indices(0, 0, 8, 10).tolist() == [9, 2, 5, 1, 6, 3, 8, 0]
    assert batch_indices(2**32 - 1, 2**31 - 1, 4, 60_000).tolist() == [34190, 54765, 8298, 41003]
    assert _shuffled(5, 3, np.arange(4, dtype=np.int32), 2**31 - 1).tolist() == [
        1723494945,
        419603323,
        564913161,
        416661670,
    ]


@settings(max_examples=60, deadline=None)
@given(
    step=st.one_of(st.integers(0, 2**32 - 1), st.integers(2**31 - 50, 2**31 + 50), st.integers(0, 100)),
    batch_size=st.sampled_from([1, 2, 3, 32, 37, 128, 1000]),
    size=st.one_of(st.integers(1, 2**31 - 1), st.integers(1, 200), st.integers(2**31 - 200, 2**31 - 1)),
)
def test_positions_are_exact_at_any_step(step: int, batch_size: int, size: int) -> None:
    epoch, offset = _positions(np.uint32(step), batch_size, size)
    wanted = [divmod(step * batch_size + b, size) for b in range(batch_size)]  # Python's integers do not overflow
    assert epoch.tolist() == [e % 2**32 for e, _ in wanted]
    assert offset.tolist() == [o for _, o in wanted]


def test_a_huge_batch_size_does_not_overflow() -> None:
    from tljax.data.order import _multiply_divide

    for a, factor, size in (
        (2**31 - 2, 2**31 - 1, 2**31 - 1),
        (12345, 65_537, 2**31 - 3),
        (0, 9, 4),
        (2, 2**30, 3),
    ):
        quotient, remainder = _multiply_divide(jnp.uint32(a), factor, jnp.uint32(size), jnp)
        assert (int(quotient), int(remainder)) == ((a * factor // size) % 2**32, a * factor % size)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 300), batch_size=st.sampled_from([1, 7, 32]))
def test_the_batches_of_an_epoch_hold_every_example_once(seed: int, size: int, batch_size: int) -> None:
    stream = np.asarray(_draw[batch_size](np.uint32(seed), np.arange(700, dtype=np.int32), np.int32(size))).ravel()
    for epoch in range(min(3, len(stream) // size)):
        part = stream[epoch * size : (epoch + 1) * size]
        np.testing.assert_array_equal(np.sort(part), np.arange(size))


@pytest.mark.slow
def test_one_program_serves_all_seeds_steps_and_sizes() -> None:
    traces = []

    @jax.jit
    def run(seed: jax.Array, size: jax.Array) -> jax.Array:
        traces.append(1)
        return jax.lax.scan(lambda c, step: (c, batch_indices(seed, step, 4, size)), 0, jnp.arange(5))[1]

    for seed, size in ((0, 10), (1, 10), (0, 3), (9, 2**31 - 1)):
        inside = run(jnp.uint32(seed), jnp.int32(size))
        outside = [batch_indices(seed, step, 4, size).tolist() for step in range(5)]
        assert inside.tolist() == outside
    assert len(traces) == 1
    many = jax.vmap(run, in_axes=(0, None))(jnp.arange(3, dtype=jnp.uint32), jnp.int32(10))
    assert many[1].tolist() == run(jnp.uint32(1), jnp.int32(10)).tolist()


def test_the_indices_are_computed_apart_from_what_reads_them() -> None:
    def drawn(data, step, size):
        return data[batch_indices(0, step, 4, size)]

    text = jax.jit(drawn).lower(jnp.zeros((9, 2)), jnp.int32(0), jnp.int32(9)).as_text()
    assert "optimization_barrier" in text  # without it jaxlib 0.12 on CPU compiles without end


def test_dtype_is_int32_and_int32_arguments_are_welcome() -> None:
    assert batch_indices(0, 0, 4, 10).dtype == jnp.int32
    assert batch_indices(jnp.int32(4), jnp.int32(9), 4, jnp.int32(10)).tolist() == batch_indices(4, 9, 4, 10).tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 4, 0), "size must be an integer in 1 .. 2147483647; found 0"),
        ((0, 0, 4, 2**31), "size must be"),
        ((-1, 0, 4, 10), "seed must be an integer in 0 .. 4294967295; found -1"),
        ((0.5, 0, 4, 10), "seed must be an integer"),
        ((0, -1, 4, 10), "step must be"),
        ((0, 0, 0, 10), "batch_size is 0"),
        ((jnp.float32(1), 0, 4, 10), "seed must be an integer; found float32"),
    ],
)
def test_impossible_arguments_are_named(arguments: tuple, words: str) -> None:
    with pytest.raises(DataError, match=words):
        batch_indices(*arguments)


def test_folded_seeds_do_not_collide() -> None:
    seeds = np.asarray(jax.vmap(lambda s: jax.vmap(lambda t: fold_seed(s, t))(jnp.arange(300)))(jnp.arange(300)))
    assert len(np.unique(seeds)) > 300 * 300 - 6  # about one collision is expected of 90,000 words of 32 bits


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_host_computes_the_same_order_without_a_device(seed: int) -> None:
    for step in (0, 1, 99_999, 2**31, 2**32 - 1):
        for batch_size, size in ((1, 1), (4, 10), (64, 60_000), (256, 2**31 - 1)):
            host = batch_indices(seed, step, batch_size, size, np)
            assert isinstance(host, np.ndarray)
            assert host.dtype == np.int32
            np.testing.assert_array_equal(host, _draws(batch_size, np.uint32(seed), np.uint32(step), size))
        assert int(fold_seed(seed, step, np)) == int(fold_seed(seed, step))


@functools.partial(jax.jit, static_argnums=0)
def _draws(batch_size, seed, step, size):
    return batch_indices(seed, step, batch_size, size)
