"""Greedy soups: models join an average one by one, as long as held-out examples say that it gains."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tljax.merging.averages import average
from tljax.merging.models import MergingError
from tljax.tree import Spec
from tljax.types import Params


class Trial(NamedTuple):
    """One model's turn to join the soup."""

    model: int
    """Its number among the models."""
    score: float
    """The mean score of the soup with it."""
    gain: float
    """What it adds to the mean score of the soup without it; NaN for the first, which starts the soup."""
    error: float
    """The standard error of the gain, over the examples in pairs; NaN where there is none."""
    kept: bool


class Soup(NamedTuple):
    """The outcome of `greedy_soup`."""

    params: Params
    kept: tuple[int, ...]
    """The numbers of the models that are averaged, best first."""
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        lines = [f"soup of {len(self.kept)} of {len(self.trials)} models", "  model   score      gain     error"]
        for t in self.trials:
            gain = "" if math.isnan(t.gain) else f"{t.gain:+.4f}"
            error = "" if math.isnan(t.error) else f"{t.error:.4f}"
            lines.append(f"  {t.model:>5}  {t.score:.4f}  {gain:>8}  {error:>8}  {'kept' if t.kept else 'left out'}")
        return "\n".join(lines)


def greedy_soup(
    models: Sequence[Params],
    score: Callable[[Params], Any],
    *,
    factor: float = 1.0,
    scores: Any = None,
    where: Spec = None,
) -> Soup:
    """From the best model on, each next one joins the average if the held-out examples gain by it, beyond chance.

    A candidate is kept if ``mean(d) > factor * std(d) / sqrt(N)``, d the differences per example between the average
    with it and without it: the standard error of a paired difference. ``factor=0`` is the published rule, which keeps
    whatever does not lower the mean, and so follows the noise of a small held-out set.

    Args:
        models: parameter trees of one architecture.
        score: ``score(params) -> [N]``, how right each held-out example is, more is better: 1 where the class is
            right, 0 where not. A model with BatchNorm should be `recalibrate`d in it first. With ``factor=0`` a mean
            will do.
        factor: how many standard errors a gain must have.
        scores: `[M, N]`, the scores of the models themselves if they are known, as from `evaluate_stacked`.
        where: which leaves are merged, as a selector; the others stay as in the best model.

    Raises:
        MergingError: no models, scores of the wrong shape or not finite, a negative factor, a mean where the factor
            needs examples.

    Reference: Wortsman et al. 2022, arXiv:2203.05482, recipe 1.

    >>> import jax.numpy as jnp
    >>> held_out = jnp.array([1.0, 2.0, 3.0, 4.0])
    >>> models = [{"w": jnp.array(w)} for w in (2.0, 3.5, 9.0)]
    >>> soup = greedy_soup(models, lambda params: -jnp.square(params["w"] - held_out), factor=0.0)
    >>> soup.kept, soup.params
    ((0, 1), {'w': Array(2.75, dtype=float32)})
    """
    if not models or factor < 0:
        raise MergingError(
            f"greedy_soup() needs a model or more and a factor of 0 or more; found {len(models)}, {factor}"
        )
    found = [score(model) for model in models] if scores is None else scores
    alone = [_per_example(row, factor) for row in found]
    if len(alone) != len(models) or len({row.shape for row in alone}) > 1:
        shapes = [row.shape for row in alone]
        raise MergingError(f"scores of shapes {shapes} for {len(models)} models; expected [N] for each")
    order = sorted(range(len(models)), key=lambda i: (-alone[i].mean(), i))
    first, *rest = order
    kept, best, params = [first], alone[first], models[first]
    trials = [Trial(first, float(best.mean()), math.nan, math.nan, True)]
    for i in rest:
        # An average of all kept ones anew, not of the last average and this one: it rounds once in half precision too.
        candidate = average([models[j] for j in (*kept, i)], where=where)
        now = _per_example(score(candidate), factor)
        gain, error = _paired(now - best)
        joins = gain >= 0 if factor == 0 else gain > factor * error
        trials.append(Trial(i, float(now.mean()), gain, error, joins))
        if joins:
            kept, best, params = [*kept, i], now, candidate
    return Soup(params, tuple(kept), tuple(trials))


def _per_example(scores: Any, factor: float) -> np.ndarray:
    row = np.asarray(scores, np.float64)
    if row.ndim > 1 or not np.isfinite(row).all():
        raise MergingError(
            f"score(params) gave {row.dtype} {row.shape}; expected a finite number for each example, [N]"
        )
    if factor and row.size < 2:
        raise MergingError(
            f"a gain of factor={factor} standard errors needs a score for each held-out example, [N]; score(params) "
            f"gave {row.size} number. Return the scores and not their mean, or set factor=0"
        )
    return np.atleast_1d(row)


def _paired(differences: np.ndarray) -> tuple[float, float]:
    """The mean of the differences and its standard error."""
    n = len(differences)
    error = float(differences.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return float(differences.mean()), error
