"""Precision, recall and F1 of classes, from counts."""

import jax.numpy as jnp

from tljax.evaluation.metrics import Found, ratio
from tljax.types import Array


def rates(right: Array, answered: Array, support: Array) -> Found:
    """Precision, recall and F1, per class and averaged; 0/0 is 0.

    ``precision = right / answered``, ``recall = right / support``, ``F1 = 2 right / (answered + support)``. `macro`
    is the mean over all C classes, `weighted` the mean by support, `micro` counts all classes together. The worst
    class is the one of lowest recall among those with examples; `worst_support` says how many it has.

    Args:
        right: how often each class was answered and true, `[C]` int.
        answered: how often it was answered, `[C]` int.
        support: how often it was true, `[C]` int.

    >>> found = rates(jnp.array([3, 1]), jnp.array([4, 1]), jnp.array([3, 2]))
    >>> print(found["class_recall"], found["macro_precision"], found["worst_class"], found["worst_support"])
    [1.  0.5] 0.875 1 2
    """
    found: Found = {"support": support}
    pairs = {
        "precision": (right, answered),
        "recall": (right, support),
        "f1": (2 * right, answered + support),
    }
    for name, (over, under) in pairs.items():
        each = ratio(over, under)
        found[f"class_{name}"] = each
        found[f"macro_{name}"] = jnp.mean(each)
        found[f"micro_{name}"] = ratio(jnp.sum(over), jnp.sum(under))
        found[f"weighted_{name}"] = ratio(jnp.sum(each * support.astype(jnp.float32)), jnp.sum(support))
    present = support > 0
    recall = jnp.where(present, found["class_recall"], jnp.inf)
    some, worst = jnp.any(present), jnp.argmin(recall)
    return found | {
        "worst_recall": jnp.where(some, jnp.min(recall), jnp.nan),
        "worst_class": jnp.where(some, worst, -1).astype(jnp.int32),
        "worst_support": jnp.where(some, support[worst], 0).astype(jnp.int32),
    }
