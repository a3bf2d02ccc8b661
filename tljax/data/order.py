"""The order of the data as a pure function of `(seed, step)`.

Nothing is shuffled and nothing is remembered: which example comes next is computed from the number of the step, so a
run that is resumed draws what it would have drawn, and the order costs no memory. Every epoch is a permutation of its
own.

The permutation of `0 .. size-1` is a Feistel network on a ragged grid. Lay the examples out row by row in a grid about
as wide as it is high, whose last row may be short. One round turns (and perhaps mirrors) every column by an amount
hashed from the column's number, the next round every row by its own. Each round maps the cells of a row or column onto
themselves, whatever its length, so the whole is a permutation for every size: no power of two, no cycle walking, no
loop, and `size` may be traced. Twelve rounds pass chi-square tests of all `n!` orders for n <= 6.

Reference: Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002 (the generalised Feistel network);
the hash is the finaliser of MurmurHash3 (Appleby, 2011).
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.data.error import DataError
from tljax.types import Array

ROUNDS = 12
_MOST = 2**31 - 1  # an index is an int32
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads the rounds over the words
_WRAPS = np.errstate(over="ignore")  # words wrap around on purpose; NumPy would warn of single ones


@_WRAPS
def shuffled_index(seed: Any, epoch: Any, offset: Any, size: Any, xp: ModuleType = jnp) -> Array:
    """The example that comes at place `offset` of the given epoch: int32 in `0 .. size-1`.

    For fixed `seed`, `epoch` and `size` it is a permutation of `0 .. size-1` as a function of `offset`, computed at
    one place without the others. Every argument is an int, or an int array of one common shape, and may be traced.

    Args:
      seed: `0 .. 2^32-1`.
      epoch: counted modulo 2^32.
      offset: `0 .. size-1`.
      size: the number of examples, `1 .. 2^31-1`.
      xp: what computes: `jax.numpy`, or `numpy` on a host that should not touch a device, as in a worker process.

    Raises:
      DataError: when an argument that is a Python or NumPy value lies outside its range.

    >>> import jax.numpy as jnp
    >>> [shuffled_index(0, epoch, jnp.arange(7), 7).tolist() for epoch in (0, 1)]
    [[6, 4, 3, 5, 0, 2, 1], [5, 0, 1, 2, 3, 6, 4]]
    """
    seed, epoch = _word(seed, "seed", 0, 2**32 - 1, xp), _word(epoch, "epoch", 0, 2**32 - 1, xp)
    offset, size = _word(offset, "offset", 0, _MOST - 1, xp), _word(size, "size", 1, _MOST, xp)
    width = _ceil_sqrt(size, xp)
    height = (size + width - 1) // width
    last = size - (height - 1) * width  # the length of the last row, 1 .. width
    row, column = offset // width, offset % width
    seed = _mix(seed, xp)  # seeds that differ by a multiple of _GOLDEN must not share their rounds
    for number in range(1, ROUNDS + 1):
        # Hashed once more per round: a pair (seed, epoch) that collides with another in one round differs in the rest.
        key = _mix(_mix(seed + xp.uint32(number * _GOLDEN % 2**32), xp) + epoch, xp)
        if number % 2:
            row = _turn(row, key + column, xp.where(column < last, height, height - 1), xp)
        else:
            column = _turn(column, key + row, xp.where(row < height - 1, width, last), xp)
    index = (row * width + column).astype(xp.int32)
    # Apart from what reads it: jaxlib 0.12 on CPU, fusing the rounds into a gather, compiles without end.
    return jax.lax.optimization_barrier(index) if xp is jnp else index


@_WRAPS
def batch_positions(step: Any, batch_size: int, size: Any, xp: ModuleType = jnp) -> tuple[Array, Array]:
    """Where step number `step` stands in the stream of examples: `(epoch [B] uint32, offset [B] int32)`.

    The stream is epoch after epoch without a gap: example `b` of step `s` is number `p = s B + b`, its epoch
    `p // size` (modulo 2^32) and its offset `p % size`; a batch may lie across the end of an epoch, or hold several.
    Exact for every step below 2^32, although `p` fits no machine word. `step` and `size` are ints or scalars and may
    be traced.

    Raises:
      DataError: when an argument that is a Python or NumPy value lies outside its range.

    >>> epoch, offset = batch_positions(2, 4, 10)
    >>> epoch.tolist(), offset.tolist()
    ([0, 0, 1, 1], [8, 9, 0, 1])
    """
    if not 1 <= batch_size <= _MOST:
        raise DataError(f"a batch holds 1 to {_MOST} examples; batch_size is {batch_size}")
    step, size = _word(step, "step", 0, 2**32 - 1, xp), _word(size, "size", 1, _MOST, xp)
    # With s = q size + r it is s B = q B size + r B, and r B is divided by `size` below.
    quotient, remainder = _multiply_divide(step % size, batch_size, size, xp)
    place = remainder + xp.arange(batch_size, dtype=xp.uint32)
    epoch = (step // size) * xp.uint32(batch_size) + quotient + place // size
    return epoch, (place % size).astype(xp.int32)


@_WRAPS
def batch_indices(seed: Any, step: Any, batch_size: int, size: Any, xp: ModuleType = jnp) -> Array:
    """The examples of step number `step`: indices `[B]` int32 into a data set of `size` examples.

    A pure function: `seed`, `step` and `size` may be traced, so that a scan over steps, several seeds under `vmap`, and
    subsets of different sizes all run in one compiled program.

    Raises:
      DataError: when an argument that is a Python or NumPy value lies outside its range.

    >>> import numpy as np
    >>> epoch = np.concatenate([batch_indices(0, step, 5, 10) for step in (0, 1)])
    >>> sorted(epoch.tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    epoch, offset = batch_positions(step, batch_size, size, xp)
    return shuffled_index(seed, epoch, offset, size, xp)


@_WRAPS
def fold_seed(seed: Any, stream: Any, xp: ModuleType = jnp) -> Array:
    """The seed of stream number `stream`, a uint32: unrelated for every pair of `seed` and `stream`.

    For data that is drawn side by side, so that equal seeds do not mean equal orders.

    >>> int(fold_seed(0, 0)) != int(fold_seed(0, 1)) != int(fold_seed(1, 0))
    True
    """
    seed, stream = _word(seed, "seed", 0, 2**32 - 1, xp), _word(stream, "stream", 0, 2**32 - 1, xp)
    return _mix(_mix(seed + xp.uint32(_GOLDEN), xp) + stream, xp)


def _multiply_divide(a: Array, factor: int, size: Array, xp: ModuleType) -> tuple[Array, Array]:
    """`divmod(a * factor, size)` for `a < size < 2^31`, the quotient modulo 2^32.

    Horner's scheme over the bits of `factor`: no intermediate value reaches `2 size`, hence none overflows.
    """
    quotient, remainder = xp.zeros_like(a), xp.zeros_like(a)
    for bit in f"{factor:b}":
        quotient, remainder = _reduce(2 * quotient, 2 * remainder, size, xp)
        if bit == "1":
            quotient, remainder = _reduce(quotient, remainder + a, size, xp)
    return quotient, remainder


def _reduce(quotient: Array, remainder: Array, size: Array, xp: ModuleType) -> tuple[Array, Array]:
    over = remainder >= size
    return quotient + over.astype(xp.uint32), xp.where(over, remainder - size, remainder)


def _turn(x: Array, key: Array, length: Array, xp: ModuleType) -> Array:
    """A bijection of `0 .. length-1`: mirrored or not, then turned, both as the hash of `key` says."""
    bits = _mix(key, xp)
    # Mirroring makes the order of small sets uniform within twelve rounds; turning alone needs many more.
    x = xp.where(bits & 1 == 1, length - 1 - x, x)
    # bits * length / 2^32 without a 64-bit product: length is under 2^16.
    x = x + (((bits >> 16) * length + (((bits & 0xFFFF) * length) >> 16)) >> 16)
    return xp.where(x >= length, x - length, x)


def _mix(x: Array, xp: ModuleType) -> Array:
    """A bijection of 32-bit words in which every bit of the input changes every bit of the output."""
    x = (x ^ (x >> 16)) * xp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * xp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _ceil_sqrt(n: Array, xp: ModuleType) -> Array:
    # Rounding differs between devices, so the float root is a guess: exact, or up to two too small. The rest is exact.
    root = xp.sqrt(n.astype(xp.float32)).astype(xp.uint32)
    for _ in range(2):
        root = xp.where(root * root < n, root + 1, root)
    return root


def _word(value: Any, name: str, low: int, high: int, xp: ModuleType) -> Any:
    """`value` as uint32; its range is checked where the value is known."""
    if isinstance(value, jax.Array) and xp is jnp:
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise DataError(f"{name} must be an integer; found {value.dtype}")
        return value.astype(xp.uint32)
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or (array.size and not (low <= array.min() and array.max() <= high)):
        raise DataError(f"{name} must be an integer in {low} .. {high}; found {value!r}")
    return xp.asarray(array.astype(np.uint32))
