"""Fisher merging: each parameter weighted by how much each model's predictions depend on it."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from tljax.merging.models import Aligned, MergingError, align, is_float, mean_statistics, wide
from tljax.tree import Spec, map_named, merge, named_leaves, select, split
from tljax.types import Array, Batch, Model, Params, is_state


def fisher(
    model: Model,
    params: Params,
    batches: Iterable[Batch],
    *,
    empirical: bool = False,
    block: int = 4,
    where: Spec = None,
) -> Params:
    """The diagonal of the Fisher information of a classifier, a tree with holes where nothing is learned.

    ``F = E_x sum_c p(c|x) (d log p(c|x) / d theta)^2``: the expectation over the model's own predictions is exact, and
    labels are not read. With ``empirical=True`` it is ``E_{x,y} (d log p(y|x) / d theta)^2``. The gradients are those
    of single examples, by `vmap`; the model infers (``train=False``), so BatchNorm uses its running statistics, and no
    example sees another.

    Args:
        model: its logits `[B, C]` are class scores.
        params: where the Fisher information is taken.
        batches: `Batch`es; `weight` counts, 0 for padding; `y`, classes `[B]`, is read if `empirical`.
        empirical: with the labels in place of the expectation.
        block: how many examples are differentiated side by side; it takes ``block * C`` times the memory of `params`.
        where: for which parameters, as a selector; the others are holes, and have no part in a merge.

    Raises:
        MergingError: no examples, or no labels where they are needed.

    Reference: Matena and Raffel 2022, arXiv:2111.09832.

    >>> from tljax.types import Output
    >>> model = Model(None, lambda params, x, **_: Output(x @ params["kernel"], x))
    >>> information = fisher(model, {"kernel": jnp.zeros((1, 2))}, [Batch(jnp.array([[2.0]]))])
    >>> information["kernel"]  # p (1 - p) x^2 with p = 1/2, x = 2
    Array([[1., 1.]], dtype=float32)
    """
    learned, rest = split(params, _learned(where, params))
    step = jax.jit(lambda total, batch: _add(model, learned, rest, total, batch, empirical, block))
    total = (map_named(lambda _, leaf: jnp.zeros_like(wide(leaf)), learned), jnp.zeros(()))
    for batch in batches:
        if empirical and batch.y is None:
            raise MergingError(
                "the empirical Fisher information reads labels; a batch has y=None. Leave empirical=False"
            )
        total = step(total, batch)
    if not total[1] > 0:
        raise MergingError("the Fisher information is a mean over examples; the batches have none")
    return map_named(lambda _, leaf: leaf / total[1].astype(leaf.dtype), total[0])


def fisher_merge(
    models: Sequence[Params],
    information: Sequence[Params],
    weights: Sequence[float] | None = None,
    *,
    floor: float = 1e-6,
    favor_first: bool = True,
    normalize: bool = True,
    where: Spec = None,
) -> Params:
    """``sum_i c_i F_i theta_i / sum_i c_i F_i``, element by element.

    Args:
        models: parameter trees of one architecture; the first is the one that matters most, as that of the target.
        information: what `fisher` gives for each.
        weights: the coefficients c, by default all 1.
        floor: the least F, so that an element that nobody depends on stays defined.
        favor_first: the floor holds for the first model only, as in the reference implementation, which so keeps the
            first's value there; else for all, and their mean is taken.
        normalize: divide each F by its norm over all parameters.
        where: which leaves are merged, as a selector; the others stay as in the first model.

    Raises:
        MergingError: trees, information and weights do not fit together, or a leaf has no information.

    Reference: Matena and Raffel 2022, arXiv:2111.09832.

    >>> a, b = {"w": jnp.array([0.0, 0.0])}, {"w": jnp.array([1.0, 1.0])}
    >>> fisher_merge([a, b], [{"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([1.0, 1.0])}], normalize=False)
    {'w': Array([0.5 , 0.25], dtype=float32)}
    """
    shares = [1.0] * len(models) if weights is None else list(weights)
    if not len(models) == len(information) == len(shares):
        raise MergingError(f"{len(models)} models, {len(information)} Fisher informations and {len(shares)} weights")
    aligned = align(models, where)
    found = [_aligned_information(tree, aligned) for tree in information]
    if normalize:
        found = [_normalized(f) for f in found]
    merged = {}
    for name, leaves in aligned.parameters.items():
        coefficients = []
        for i, (share, f) in enumerate(zip(shares, found)):
            floored = jnp.maximum(f[name], floor) if i == 0 or not favor_first else f[name]
            coefficients.append(share * floored)
        merged[name] = sum(c * wide(leaf) for c, leaf in zip(coefficients, leaves)) / sum(coefficients)
    return aligned.build(merged | mean_statistics(aligned))


def _learned(where: Spec, params: Params) -> Spec:
    def parameter(name: str, leaf: object) -> bool:
        return is_float(leaf) and not is_state(name)

    return select(parameter) if where is None else select(parameter) & where


def _add(
    model: Model,
    learned: Params,
    rest: Params,
    total: tuple[Params, Array],
    batch: Batch,
    empirical: bool,
    block: int,
) -> tuple[Params, Array]:
    """`total` with the squares of one batch added, in blocks of examples padded with weight 0."""
    n = len(jax.tree.leaves(batch.x)[0])
    weight = jnp.ones(n) if batch.weight is None else jnp.asarray(batch.weight, jnp.float32)
    labels = jnp.asarray(batch.y if empirical else jnp.zeros(n), jnp.int32)
    pad = -n % block

    def blocks(a: Array) -> Array:
        return jnp.pad(jnp.asarray(a), [(0, pad)] + [(0, 0)] * (jnp.ndim(a) - 1), mode="edge").reshape(
            -1, block, *jnp.shape(a)[1:]
        )

    weight = jnp.pad(weight, (0, pad)).reshape(-1, block)

    def log_p(theta: Params, x: Array) -> Array:
        logits = model.apply(merge(theta, rest), jax.tree.map(lambda a: a[None], x)).logits[0]
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def one(x: Array, y: Array, w: Array) -> Params:
        p = jnp.exp(log_p(learned, x))
        share = jax.nn.one_hot(y, len(p)) if empirical else p
        rows = jax.jacrev(log_p)(learned, x)
        return jax.tree.map(lambda g: w * jnp.tensordot(share, jnp.square(wide(g)), 1), rows)

    def add(sums: Params, part: tuple) -> tuple[Params, None]:
        found = jax.vmap(one)(*part)
        return jax.tree.map(lambda s, f: s + jnp.sum(f, 0), sums, found), None

    sums, _ = jax.lax.scan(add, total[0], (jax.tree.map(blocks, batch.x), blocks(labels), weight))
    return sums, total[1] + jnp.sum(weight)


def _aligned_information(tree: Params, aligned: Aligned) -> dict[str, Array]:
    found = named_leaves(tree)
    for name, leaves in aligned.parameters.items():
        if name not in found or found[name].shape != jnp.shape(leaves[0]):
            shape = found[name].shape if name in found else "no such leaf"
            raise MergingError(
                f"{name!r} is {jnp.shape(leaves[0])} in the models and {shape} in the Fisher information; take "
                "fisher() of it, or leave it out of the merge with where="
            )
    return {name: wide(found[name]) for name in aligned.parameters}


def _normalized(information: dict[str, Array]) -> dict[str, Array]:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(f)) for f in information.values()))
    return {name: f / jnp.where(norm > 0, norm, 1.0).astype(f.dtype) for name, f in information.items()}
