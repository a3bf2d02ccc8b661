"""LoHa and LoKr in peft files."""

import jax.numpy as jnp
import numpy as np

from tljax.peft.hf_axes import axes_of
from tljax.peft.hf_reader import Parts, Reader
from tljax.peft.lycoris import LoHa, LoKr


def loha(reader: Reader, path: str, left: Parts) -> None:
    """Two products of low rank; the core that a convolution has goes into the inputs, so that they stay products."""
    pairs = []
    for n in (1, 2):
        b, a = reader.take(path, left, f"hada_w{n}_a", f"hada_w{n}_b")
        core = left.pop(f"hada_t{n}", None)
        pairs.append((a, b) if core is None else (_cored(reader, path, core, a), b.T))
    link, shape = reader.weight(path)
    for a, b in pairs:
        reader.check_factors(path, a, b, shape)
    scale = jnp.float32(reader.config.scale(path, pairs[0][0].shape[0]))
    for leaf in link.ours:
        axes = axes_of(link, leaf, reader.names.leaves, "outs")
        a_1, b_1, a_2, b_2 = (jnp.asarray(factor) for pair in pairs for factor in axes.factors(*pair))
        reader.add(leaf, LoHa(a_1, b_1, a_2, b_2, {"scale": scale}, axes.layout))


def lokr(reader: Reader, path: str, left: Parts) -> None:
    """A Kronecker product, whose two matrices may be products themselves."""
    first, rank = _part(reader, path, left, 1)
    second, other = _part(reader, path, left, 2)
    link, shape = reader.weight(path)
    if first.ndim == 2 and second.ndim == 2 and len(shape) > 2:
        window = int(np.prod(shape[2:]))
        if second.shape[1] % window == 0 and first.shape[1] * second.shape[1] == np.prod(shape[1:]):
            second = second.reshape(second.shape[0], -1, *shape[2:])
    found = tuple(n * m for n, m in zip(first.shape, second.shape)) + second.shape[2:]
    if first.ndim != 2 or found != shape:
        raise reader.error(path, f"lokr_w1 {list(first.shape)} and lokr_w2 {list(second.shape)} do not make its weight "
                           f"{list(shape)}")  # fmt: skip
    axes = axes_of(link, link.ours[0], reader.names.leaves, "outs")
    channels_last = np.arange(axes.total[0]).reshape(shape[1], -1).T
    if len(link.ours) > 1 or not np.array_equal(axes.ins.ravel(), channels_last.ravel()) or not axes.outs_in_order:
        raise reader.error(
            path, f"{link.ours[0]!r} has its axes in another order, in which this is no Kronecker product"
        )
    scale = reader.config.scale(path, rank or other or int(reader.config.rank.of(path)))
    turned = second.transpose(*range(2, second.ndim), 1, 0)
    reader.add(
        link.ours[0], LoKr(jnp.asarray(first.T), jnp.asarray(turned), {"scale": jnp.float32(scale)}, axes.layout)
    )


def _part(reader: Reader, path: str, left: Parts, n: int) -> tuple[np.ndarray, int]:
    """`[rows, columns, window...]`, and the rank where it is a product."""
    if f"lokr_w{n}" in left:
        return left.pop(f"lokr_w{n}"), 0
    a, b = reader.take(path, left, f"lokr_w{n}_a", f"lokr_w{n}_b")
    core = left.pop("lokr_t2", None) if n == 2 else None
    if core is not None:
        a, b = a.T, _cored(reader, path, core, b)
    if a.ndim != 2 or a.shape[1] != b.shape[0]:
        raise reader.error(path, f"lokr_w{n} is {list(a.shape)} times {list(b.shape)}: the ranks differ")
    return np.tensordot(a, b, 1), reader.rank(path, b)


def _cored(reader: Reader, path: str, core: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[r, columns, window...]`: the core `[r, s, window...]` times `[s, columns]`."""
    if core.ndim < 3 or b.ndim != 2 or core.shape[1] != b.shape[0]:
        raise reader.error(path, f"the core {list(core.shape)} does not fit the factor {list(b.shape)}")
    return np.moveaxis(np.tensordot(core, b, ([1], [0])), -1, 1)
