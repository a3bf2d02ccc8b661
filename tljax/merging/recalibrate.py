"""Running statistics of normalisation, measured anew: after a merge, or on another domain (AdaBN)."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.merging.models import MergingError, is_float, wide, with_leaves
from tljax.tree import map_named, named_leaves
from tljax.types import STATE_KEY, Array, Batch, Key, Model, Params

_FAR = 2.0**60
"""A power of 2 beside which any statistic is lost in rounding, so that its factor is seen alone, to the last digit."""


def recalibrate(model: Model, params: Params, batches: Iterable[Batch], *, key: Key | None = None) -> Params:
    """`params` with the running means and variances of its BatchNorm layers as they are on `batches`.

    Averaged weights make activations that no model had, and the averaged statistics do not fit them. A few hundred
    unlabelled examples of the target will do. On the inputs of another domain this is AdaBN: a model of the source,
    whose weights stay as they are, normalised by the statistics of the target. Mean and variance are ``E[x]`` and
    ``E[x^2] - E[x]^2``, the average over the batches, each weighted by its number of examples; batches should be of the
    size of those in training or larger, since while measuring each is normalised by its own.

    How strongly a layer follows a batch (its momentum) is found by asking it: given running statistics r, it returns
    ``m r + (1 - m) b`` for the statistics b of the batch, so r = 0 and a very large r give m and b.

    Args:
        model: a model whose ``apply(train=True)`` returns updated statistics.
        params: the merged parameters.
        batches: `Batch`es of which `x` is read. All examples count, so there must be no padding.
        key: for models that draw random numbers while training (dropout).

    It works under `jit` and in `evaluate_stacked` too, where the batches must be known.

    A tree without such statistics comes back as it is; so do statistics that the model does not update.

    Raises:
        MergingError: no batches, or padding in them.

    Reference: Li et al. 2016, Revisiting batch normalization for practical domain adaptation, arXiv:1603.04779.

    >>> from tljax.models import mlp
    >>> params = {"head": {"bias": jnp.ones(2)}}
    >>> recalibrate(mlp(num_classes=2), params, []) is params
    True
    """
    names = [name for name, leaf in named_leaves(params).items() if _is_running(name, leaf)]
    if not names:
        return params
    respond = jax.jit(functools.partial(_response, model), static_argnames="names")
    momenta: dict[str, float] | None = None
    total, n = dict[str, Array](), 0
    for i, batch in enumerate(batches):
        if batch.weight is not None and not np.all(np.asarray(batch.weight) > 0):
            raise MergingError("a batch has padding (weight 0), which would count in the statistics; leave it out")
        own = None if key is None else jax.random.fold_in(key, i)
        if momenta is None:
            momenta = _momenta(functools.partial(respond, _known(params)), names, batch.x, own)
        found = respond(params, tuple(momenta), jnp.float32(0), batch.x, own)
        found = {name: leaf / (1 - momenta[name]) for name, leaf in found.items()}
        size = len(jax.tree.leaves(batch.x)[0])
        n += size
        total = _pooled(total or found, found, size / n)
    if not n:
        raise MergingError(
            "there are no batches to take statistics from; expected a few hundred examples of the target"
        )
    return with_leaves(params, total)


def _is_running(name: str, leaf: Any) -> bool:
    """Whether this is a statistic of a normalisation layer, and not, say, the index of a cache."""
    return is_float(leaf) and name.split("/")[-2:-1] == [STATE_KEY]


def _response(
    model: Model, params: Params, names: tuple[str, ...], value: Array, x: Any, key: Key | None
) -> dict[str, Array]:
    """What the statistics `names` become by one batch when all of their elements are `value` before."""
    chosen = set(names)
    start = map_named(lambda name, leaf: jnp.full_like(wide(leaf), value) if name in chosen else leaf, params)
    stats = model.apply(start, x, train=True, key=key).stats
    return {name: leaf for name, leaf in named_leaves(stats).items() if name in chosen}


def _known(params: Params) -> Params:
    """`params`, or under a transformation, which hides their numbers, zeros: the momentum is the same for all."""
    leaves = named_leaves(params).values()
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return params
    return map_named(lambda _, leaf: np.zeros(np.shape(leaf), jnp.result_type(leaf)), params)


def _momenta(
    respond: Callable[..., dict[str, Array]], names: Sequence[str], x: Any, key: Key | None
) -> dict[str, float]:
    """The momentum of each of the statistics that the model updates.

    Somebody wrote it as a decimal, of which the layer knows the nearest float32; ``1 - m`` needs the decimal.
    """
    while True:
        with jax.ensure_compile_time_eval():
            known = None if key is None else jax.random.key(0)  # what is drawn changes nothing either
            found = respond(tuple(names), jnp.float32(_FAR), x, known)
        momenta = {name: float(str(np.median(np.asarray(leaf)) / np.float32(_FAR))) for name, leaf in found.items()}
        moving = [name for name in names if momenta.get(name, 1.0) != 1.0]
        if len(moving) == len(names):
            return momenta
        names = moving  # those that infer even now have their own statistics from here on, as the others' inputs need


def _pooled(total: Mapping[str, Array], found: Mapping[str, Array], share: float) -> dict[str, Array]:
    """The statistics of two sets of examples together, the second of which makes up `share` of them."""
    pooled = {}
    for name, leaf in found.items():
        pooled[name] = total[name] + share * (leaf - total[name])
        mean = name.removesuffix("var") + "mean"
        if name.endswith("/var") and mean in found:  # E[x^2] - E[x]^2, without the difference of large numbers
            pooled[name] += share * (1 - share) * jnp.square(found[mean] - total[mean])
    return pooled
