"""How far apart two domains are, to a linear classifier."""

from typing import Any

import numpy as np

from tljax.evaluation.evaluate import EvaluationError
from tljax.probes import logistic


def a_distance(source_features: Any, target_features: Any, *, strength: float = 1.0, seed: int = 0) -> float:
    """The proxy A-distance of two domains' features: how well a linear classifier tells them apart.

        d = 2 (1 - 2 error),    from 0, where it only guesses, to 2, where no example is mistaken

    The error is that of a logistic regression on examples which it has not seen: either half of them is told by the fit
    to the other. Both domains have as many: of the larger, a sample. An error above one half is chance, and counts as
    one half. A large distance means that the features still show the domain; a small one does not mean that classes
    lie where they did.

    Args:
        source_features: `[N, D]`, four examples or more.
        target_features: `[M, D]`, likewise.
        strength: C of the logistic regression, on features of deviation 1.
        seed: of the halves and the sample.

    Raises:
        EvaluationError: shapes that do not fit, fewer than four examples, or values that are not finite.
        ProbeError: a strength that is not positive.

    Reference: Ben-David et al. 2006, Analysis of representations for domain adaptation, NeurIPS; Ganin et al.
    2016, arXiv:1505.07818, who measure it so.

    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(size=(2, 400, 3))
    >>> a_distance(source, target) < 0.3, a_distance(source, target + [6.0, 0.0, 0.0]) > 1.9
    (True, True)
    """
    given = [np.asarray(features) for features in (source_features, target_features)]
    shapes = " and ".join(str(features.shape) for features in given)
    if any(features.ndim != 2 for features in given) or given[0].shape[1:] != given[1].shape[1:]:
        raise EvaluationError(f"a_distance() needs features [N, D] and [M, D]; found {shapes}")
    few = min(map(len, given))
    if few < 4:
        raise EvaluationError(f"a_distance() needs four examples or more of each domain; found {shapes}")
    if not all(np.all(np.isfinite(features)) for features in given):
        raise EvaluationError("a_distance() needs finite features; found NaN or infinity")
    half, rng = few // 2, np.random.default_rng(seed)
    drawn = [features[rng.permutation(len(features))[: 2 * half]] for features in given]
    domain = np.repeat([0, 1], 2 * half)
    folds = np.arange(4 * half).reshape(2, 2, half).swapaxes(0, 1).reshape(2, -1)
    x = np.concatenate(drawn).astype(np.promote_types(drawn[0].dtype, np.float32))
    heads = logistic(x, domain, num_classes=2, strengths=strength, subsets=folds, scale="features")
    answers = np.asarray(heads.predict(x)).argmax(-1)
    errors = [np.mean(answers[fold, rows] != domain[rows]) for fold, rows in enumerate(folds[::-1])]
    return float(2 * (1 - 2 * min(0.5, np.mean(errors))))
