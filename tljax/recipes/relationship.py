"""Co-tuning's relationship: which source categories the examples of each target class look like."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives import RelationshipError, cross_entropy_losses, direct_relationship, reverse_relationship
from tljax.probes import logistic, temperature
from tljax.types import Array

STRENGTHS = (1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""The C that are tried for the regression from source probabilities to target classes."""
FOLDS = 5


def category_relationship(
    logits: Any,
    labels: Any,
    *,
    form: Literal["reverse", "direct"] = "reverse",
    scale: float = 1.0,
    num_classes: int | None = None,
    strengths: Any = STRENGTHS,
) -> Array:
    """How likely each source category is for each target class, `[C, C0]`: what `tl.co_tuning` reads.

    "direct" is the mean of the source's probabilities over the examples of a class. "reverse", which the paper prefers,
    fits a logistic regression from the probabilities to the classes, calibrates it on examples that it did not see
    (five folds choose its strength and its temperature), asks it for one category at a time, p(y | z), and turns that
    round by Bayes' rule with the mean of the probabilities as the prior p(z).

    Args:
      logits: of the source's classifier for the labelled target examples, `[N, C0]`, without augmentation.
      labels: target classes `[N]` int.
      form: "reverse" needs two examples or more of every class; "direct" one.
      scale: the source's own temperature, which divides `logits`; `tl.probes.temperature` of the source's logits on
        data of the source.
      num_classes: C; by default as many as the largest label needs.
      strengths: the C that are tried, the inverse of the regression's penalty.

    Raises `RelationshipError` for shapes that do not fit, and for classes with too few examples.

    Reference: You et al. 2020, Co-tuning for transfer learning, NeurIPS 2020.

    >>> logits = 4 * np.eye(3, dtype="float32")[[0, 0, 0, 1, 2, 1, 2]]
    >>> category_relationship(logits, np.array([0, 0, 0, 1, 1, 1, 1]), form="direct").round(2).tolist()[0]
    [0.959..., 0.019..., 0.019...]
    """
    z, y = jnp.asarray(logits, jnp.float32), np.asarray(labels)
    if form not in ("reverse", "direct") or not scale > 0:
        raise RelationshipError(f"form is 'reverse' or 'direct' and scale above 0; found {form!r} and {scale!r}")
    if z.ndim != 2:
        raise RelationshipError(f"a relationship needs logits [N, C0]; found {z.shape}")
    p = jax.nn.softmax(z / scale)
    direct = direct_relationship(p, jnp.asarray(y), num_classes=num_classes)  # checks what both forms need
    if form == "direct":
        return direct
    given = np.bincount(y, minlength=len(direct))
    if given.min() < 2:
        raise RelationshipError(
            f"the reverse form needs 2 examples of every class; class {int(given.argmin())} has {int(given.min())}. "
            "Use form='direct'"
        )
    answers = _calibrated_answers(p, y, strengths, len(direct))
    return reverse_relationship(jax.nn.softmax(answers), jnp.mean(p, axis=0))


def _calibrated_answers(p: Array, y: np.ndarray, strengths: Any, classes: int) -> Array:
    """Logits of the classes for one category at a time, `[C0, C]`, of a regression on all examples.

    Its strength and its temperature are those under which examples left out are likeliest.
    """
    fold = np.empty(len(y), int)
    for c in range(classes):  # every class in every training part
        fold[y == c] = np.arange(np.sum(y == c)) % FOLDS
    parts = np.unique(fold)
    kept = np.append(fold[None] != parts[:, None], np.ones((1, len(y)), bool), axis=0).astype(np.float32)
    tried = np.atleast_1d(np.asarray(strengths, float))
    fits = logistic(p, y, num_classes=classes, strengths=tried, weight=kept)
    answers = np.asarray(fits.predict(p))  # [folds + 1, strengths, N, C], the last on all examples
    left_out = jnp.asarray(answers[np.searchsorted(parts, fold), :, np.arange(len(y))])  # [N, strengths, C]
    heats = [temperature(left_out[:, i], y) for i in range(len(tried))]
    losses = [
        float(jnp.mean(cross_entropy_losses(left_out[:, i] / heat, jnp.asarray(y, jnp.int32))))
        for i, heat in enumerate(heats)
    ]
    best = int(np.argmin(losses))
    return fits.predict(np.eye(p.shape[1], dtype=np.float32))[-1, best] / heats[best]
