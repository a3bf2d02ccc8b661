"""What fine-tuning did to the source: accuracy lost there, features turned, weights moved, and the way back."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation.evaluate import EvaluationError, predict
from tljax.merging import interpolate
from tljax.probes import ridge
from tljax.tree import is_array, map_named, named_leaves, nearest, select
from tljax.types import Model, Params, is_state

ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))
"""The usual points on the way from the pretrained to the fine-tuned weights."""


def cka(before: Any, after: Any) -> float:
    r"""The linear centred kernel alignment of two representations of the same examples, `[N, D]` and `[N, E]`.

    With centred columns ``|B^T A|^2 / (|A^T A| |B^T B|)`` in the Frobenius norm: 1 where one is the other turned, moved
    or scaled, near 0 where they have nothing in common. It is biased upwards where N is not much larger than D. NaN
    where one of them is constant, or holds NaN. Worked out in float64 on the host.

    Raises:
        EvaluationError: shapes that do not fit.

    Reference: Kornblith et al. 2019, Similarity of neural network representations revisited, arXiv:1905.00414.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> turned = x @ np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    >>> round(cka(x, 5 * turned + 1), 6), round(cka(x, x**2), 1)
    (1.0, 0.2)
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise EvaluationError(
            f"cka() needs features [N, D] and [N, E] of the same examples, found {a.shape}, {b.shape}"
        )
    a, b = a - a.mean(0), b - b.mean(0)
    if max(a.shape[1], b.shape[1]) > len(a):  # the same numbers from the N x N side
        k, m = a @ a.T, b @ b.T
        inner, sizes = float((k * m).sum()), float(np.linalg.norm(k) * np.linalg.norm(m))
    else:
        inner = float(np.linalg.norm(b.T @ a) ** 2)
        sizes = float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    return inner / sizes if sizes > 0 else math.nan


def weight_distance(
    before: Params, after: Params, groups: Sequence[Any] = ("backbone/**", "head/**")
) -> dict[str, float]:
    """``|after - before| / |before|`` of the parameters of each group, by the group's selector.

    Norms are Frobenius', over all leaves of a group together. Running statistics are no weights and are left out, as
    are groups without weights. A group that was all zeros and moved is infinitely far.

    Args:
        before, after: parameter trees of one architecture.
        groups: selectors, stem to head: a model's own are ``model.groups``.

    Raises:
        EvaluationError: a leaf that only one tree has, or that has two shapes.

    >>> before = {"backbone": {"w": jnp.array([3.0, 4.0])}, "head": {"w": jnp.array([1.0])}}
    >>> after = {"backbone": {"w": jnp.array([3.0, 5.0])}, "head": {"w": jnp.array([1.0])}}
    >>> weight_distance(before, after)
    {'backbone/**': 0.2, 'head/**': 0.0}
    """
    old, new = _weights(before), _weights(after)
    _check_alike(old, new)
    found = {}
    for group in groups:
        names = [name for name in select(group).names(before, required=False) if name in old]
        if names:
            moved = math.sqrt(sum(float(np.sum((new[name] - old[name]) ** 2)) for name in names))
            size = math.sqrt(sum(float(np.sum(old[name] ** 2)) for name in names))
            found[str(group)] = moved / size if size else (math.inf if moved else 0.0)
    return found


class Forgetting(NamedTuple):
    """What a model still knows of its source after fine-tuning; accuracies on the source, NaN for what is unknown."""

    before: float
    """With the source head, before."""
    after: float
    """With the source head on the backbone after."""
    refit_before: float
    """With a ridge regression on the features before, fitted anew."""
    refit_after: float
    """With one on the features after: what the features still tell, whatever the head."""
    cka: float
    """Of the features before and after."""

    @property
    def forgotten(self) -> float:
        """``before - after``; where there is no source head, of the refitted heads.

        >>> Forgetting(0.9, 0.75, float("nan"), float("nan"), 0.5).forgotten
        0.15000000000000002
        """
        lost = self.before - self.after
        return self.refit_before - self.refit_after if math.isnan(lost) else lost


def forgetting(
    model: Model,
    before: Params,
    after: Params,
    test: Any,
    *,
    train: Any = None,
    head: Any = "head/**",
    batch_size: int = 256,
) -> Forgetting:
    """The accuracy on the source that fine-tuning cost: ``acc(before) - acc(after with the source head)``.

    The head of `after` belongs to another task and is put back to that of `before`. Where the source head is lost
    (`head=None`), a ridge regression is fitted on the source features both times, which needs `train`; with a head and
    `train` both are told. Forgetting by the old head alone overstates: features that merely turned are not lost.

    Args:
        model: the source model.
        before: its parameters; without a head of use, any will do.
        after: parameters whose leaves outside of the head are those of the fine-tuned model.
        test: labelled source examples ``(x, y)``, or an object with `x` and `y`, which are scored.
        train: others, which the ridge regression is fitted to.
        head: selects the head's leaves; None where the source head is lost.

    Raises:
        EvaluationError: backbones that differ in names or shapes, or neither a head nor `train`.

    Reference: Kirkpatrick et al. 2017, arXiv:1612.00796 (forgetting); Davari et al. 2022, arXiv:2203.13381 (why to
    refit the head).

    >>> from tljax.models import mlp
    >>> x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((8,), num_classes=2)
    >>> params = model.init(jax.random.key(0), x)
    >>> found = forgetting(model, params, params, (x, y), train=(x, y))
    >>> found.forgotten, round(found.cka, 6), found.refit_after > 0.8
    (0.0, 1.0, True)
    """
    if head is None and train is None:
        raise EvaluationError("forgetting() needs the source head, or training examples to fit one anew: train=(x, y)")
    tuned = before_head(before, after, head)
    x, y = _pair(test)
    first, last = (predict(model, params, x, batch_size=batch_size) for params in (before, tuned))
    known = [math.nan] * 2 if head is None else [_accuracy(out.logits, y) for out in (first, last)]
    refit = [math.nan] * 2
    if train is not None:
        more, labels = _pair(train)
        width = int(max(labels.max(), y.max())) + 1
        for i, (params, out) in enumerate(((before, first), (tuned, last))):
            features = predict(model, params, more, batch_size=batch_size).features
            if not (np.isfinite(features).all() and np.isfinite(out.features).all()):
                continue  # a run that diverged: nothing can be fitted
            refit[i] = _accuracy(ridge(features, labels, num_classes=width).predict(out.features), y)
    return Forgetting(known[0], known[1], refit[0], refit[1], cka(first.features, last.features))


def before_head(before: Params, after: Params, head: Any = "head/**") -> Params:
    """`before` with all leaves of `after` that `head` does not select: the fine-tuned model with its old head.

    Raises:
        EvaluationError: a leaf outside of the head that `after` lacks, or has in another shape.

    >>> before_head({"backbone": {"w": 1.0}, "head": {"w": 2.0}}, {"backbone": {"w": 3.0}, "head": {"b": 4.0}})
    {'backbone': {'w': 3.0}, 'head': {'w': 2.0}}
    """
    kept = set() if head is None else set(select(head).names(before))
    new = named_leaves(after)
    rest = {name: leaf for name, leaf in named_leaves(before).items() if name not in kept}
    _check_alike(rest, {name: new[name] for name in rest if name in new})
    return map_named(lambda name, leaf: leaf if name in kept else new[name], before)


def tradeoff(
    start: Params, tuned: Params, score: Callable[[Params], Mapping[str, float]], *, alphas: Sequence[float] = ALPHAS
) -> dict[str, list[float]]:
    """What `score` says of ``(1 - alpha) start + alpha tuned``, for each alpha: the trade-off curve of WiSE-FT.

    Both ends need heads that go together: let `start` be the linear probe of the pretrained model, and `tuned` what was
    fine-tuned. Running statistics are averaged too, which is a start; where they matter, recalibrate in `score`.

    Returns the alphas and, by the names that `score` gives, lists of numbers as long.

    Raises:
        MergingError: the trees do not fit together.

    Reference: Wortsman et al. 2022, Robust fine-tuning of zero-shot models, arXiv:2109.01903.

    >>> start, tuned = {"w": jnp.array(0.0)}, {"w": jnp.array(4.0)}
    >>> tradeoff(start, tuned, lambda params: {"w": float(params["w"])}, alphas=[0, 0.5, 1])
    {'alphas': [0.0, 0.5, 1.0], 'w': [0.0, 2.0, 4.0]}
    """
    points = [float(alpha) for alpha in alphas]
    found: dict[str, list[float]] = {"alphas": points}
    for alpha in points:
        for name, value in score(_between(start, tuned, jnp.float32(alpha))).items():
            found.setdefault(name, []).append(float(value))
    return found


_between = jax.jit(interpolate)


def _weights(params: Params) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(leaf, np.float64)
        for name, leaf in named_leaves(params).items()
        if is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and not is_state(name)
    }


def _check_alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name, leaf in old.items():
        if name not in new:
            near = nearest(name, new, 1)
            hint = f"; its nearest is {near[0]!r}" if near else ""
            raise EvaluationError(f"{name!r} is missing after fine-tuning{hint}: both must be of one architecture")
        if np.shape(leaf) != np.shape(new[name]):
            raise EvaluationError(f"{name!r} is {np.shape(leaf)} before and {np.shape(new[name])} after fine-tuning")


def _pair(data: Any) -> tuple[Any, np.ndarray]:
    x, y = (data.x, data.y) if hasattr(data, "x") and hasattr(data, "y") else data
    return x, np.asarray(y)


def _accuracy(scores: Any, labels: np.ndarray) -> float:
    return float(np.mean(np.asarray(scores).argmax(-1) == labels))
