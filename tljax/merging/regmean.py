"""RegMean: each matrix merged so that its outputs stay near those of every model on that model's own inputs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.merging.inputs import Axes, Reading, readings
from tljax.merging.models import MergingError, align, is_float, mean_of, mean_statistics, wide
from tljax.tree import Spec, map_named, named_leaves
from tljax.types import Array, Batch, Model, Params, is_state


class Gram(NamedTuple):
    """The second moments of what a leaf is multiplied with."""

    matrix: Any
    """``G = X^T X / T``, `[I, I]`."""
    axes: Axes
    """The axes of the leaf that the product sums over, I elements in all: `(0,)` for a Dense kernel `[I, O]`."""


def grams(model: Model, params: Params, batches: Iterable[Batch]) -> dict[str, Gram]:
    """The Gram matrices of the inputs of every matrix of `model`, by name.

    The program of ``model.apply`` is traced and read: wherever a leaf is multiplied with activations, these are kept.
    So it needs no hooks, and works for Linen, NNX and plain functions, attention and 1x1 convolutions by matmul
    included. Left out, so that `regmean` averages them, are leaves in loops (`nn.scan`), in convolutions, and
    such as have other uses too (an embedding that is also the output layer). The model infers (``train=False``).

    Args:
        model: the model of `params`.
        params: one of the models to be merged.
        batches: `Batch`es of its own data, of which `x` is read; no padding. Every position of an example is a row.

    Raises:
        MergingError: no batches, or padding in them.

    Reference: Jin et al. 2023, arXiv:2212.09849.

    >>> from tljax.types import Output
    >>> model = Model(None, lambda params, x, **_: Output(x @ params["kernel"], x))
    >>> found = grams(model, {"kernel": jnp.ones((2, 3))}, [Batch(jnp.array([[1.0, 0.0], [1.0, 2.0]]))])
    >>> found["kernel"].matrix.tolist(), found["kernel"].axes
    ([[1.0, 1.0], [1.0, 2.0]], (0,))
    """

    @jax.jit
    def moments(leaves: dict[str, Array], x: Any) -> dict[tuple[str, Axes], tuple[Array, Array]]:
        return _moments(readings(lambda leaves, x: _logits(model, params, leaves, x), leaves, x))

    leaves = {name: leaf for name, leaf in named_leaves(params).items() if is_float(leaf) and not is_state(name)}
    total: dict[tuple[str, Axes], tuple[Array, Array]] = {}
    for batch in batches:
        if batch.weight is not None and not np.all(np.asarray(batch.weight) > 0):
            raise MergingError("a batch has padding (weight 0), which would count in the moments; leave it out")
        found = moments(leaves, batch.x)
        total = jax.tree.map(jnp.add, total, found) if total else found
    if not total:
        raise MergingError("there are no batches, or no matrix of the model is multiplied with activations")
    return {name: Gram(matrix / count, axes) for (name, axes), (matrix, count) in total.items()}


def regmean(
    models: Sequence[Params],
    moments: Sequence[Mapping[str, Gram]],
    *,
    scale: float = 0.9,
    ridge: float = 1e-6,
    where: Spec = None,
) -> Params:
    """``W = (sum_i G_i)^-1 sum_i G_i W_i`` for every matrix that has Gram matrices; all else is averaged.

    A ridge, ``ridge`` times the mean of the diagonal, pulls towards the plain average, which so decides where no input
    ever was: units that are dead in all models leave G singular. Computed in float64 on the host.

    Args:
        models: parameter trees of one architecture.
        moments: what `grams` gives for each.
        scale: what the elements off the diagonal of G are multiplied with; published 0.9, and 1 for G as it is.
        ridge: relative to the diagonal; 0 for none.
        where: which leaves are merged, as a selector; the others stay as in the first model.

    Raises:
        MergingError: trees and Gram matrices do not fit together, or G is singular with ``ridge=0``.

    Reference: Jin et al. 2023, arXiv:2212.09849.

    >>> models = [{"w": jnp.array([[1.0]])}, {"w": jnp.array([[4.0]])}]
    >>> moments = [{"w": Gram(np.array([[2.0]]), (0,))}, {"w": Gram(np.array([[1.0]]), (0,))}]
    >>> print(jnp.round(regmean(models, moments)["w"], 4))
    [[2.]]
    """
    if len(models) != len(moments):
        raise MergingError(f"{len(models)} models and {len(moments)} sets of Gram matrices; expected one for each")
    aligned = align(models, where)
    merged = {}
    for name, leaves in aligned.parameters.items():
        found = [gram[name] for gram in moments if name in gram]
        if len(found) == len(models) and len({gram.axes for gram in found}) == 1:
            merged[name] = _solved(name, leaves, found, scale, ridge)
        else:
            merged[name] = mean_of(leaves)
    return aligned.build(merged | mean_statistics(aligned))


def _logits(model: Model, params: Params, leaves: Mapping[str, Array], x: Any) -> Array:
    return model.apply(map_named(lambda name, leaf: leaves.get(name, leaf), params), x).logits


def _moments(found: Sequence[Reading]) -> dict[tuple[str, Axes], tuple[Array, Array]]:
    """``X^T X`` and the number of rows, for each leaf that is always multiplied over the same axes."""
    uses: dict[str, set[Axes | None]] = {}
    for reading in found:
        uses.setdefault(reading.name, set()).add(reading.axes)
    sums: dict[tuple[str, Axes], tuple[Array, Array]] = {}
    for reading in found:
        if reading.axes is None or reading.inputs is None or len(uses[reading.name]) > 1:
            continue
        x = wide(reading.inputs)
        gram, rows = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST), jnp.float32(len(x))
        before = sums.get((reading.name, reading.axes))
        sums[reading.name, reading.axes] = (gram, rows) if before is None else (before[0] + gram, before[1] + rows)
    return sums


def _solved(name: str, leaves: Sequence[Any], found: Sequence[Gram], scale: float, ridge: float) -> Array:
    axes = found[0].axes
    front = tuple(range(len(axes)))
    moved = [np.moveaxis(np.asarray(wide(leaf), np.float64), axes, front) for leaf in leaves]
    width = int(np.prod([moved[0].shape[i] for i in front], dtype=int))
    weights = [m.reshape(width, -1) for m in moved]
    shrunk = []
    for gram in found:
        matrix = np.asarray(gram.matrix, np.float64)
        if matrix.shape != (width, width):
            raise MergingError(
                f"{name!r} has {width} inputs and a Gram matrix {matrix.shape}; take grams() of this model"
            )
        shrunk.append(scale * matrix + (1 - scale) * np.diag(np.diag(matrix)))
    total = sum(shrunk, np.zeros((width, width)))
    guard = ridge * np.trace(total) / width
    mean = np.mean(weights, axis=0)
    target = sum((g @ w for g, w in zip(shrunk, weights)), guard * mean)
    try:
        solution = np.linalg.solve(total + guard * np.eye(width), target) if np.trace(total) else mean
    except np.linalg.LinAlgError as error:
        raise MergingError(
            f"the Gram matrices of {name!r} are singular: some inputs are always 0; set ridge=1e-6"
        ) from error
    return jnp.asarray(np.moveaxis(solution.reshape(moved[0].shape), front, axes), wide(leaves[0]).dtype)
