"""Which pictures the results give rise to, and what they say in words: captions, and texts for who cannot see them."""

import numpy as np

from tljax.evaluation.report.blocks import Picture
from tljax.evaluation.report.numbers import plural
from tljax.evaluation.report.results import (
    Results,
    at_main_shots,
    baseline,
    confusion,
    curves,
    is_finite,
    is_regression,
    judged,
    label,
    labels_noun,
    main_scale,
    main_shots,
    mean,
    seeds,
    summary,
)


def percent_level(results: Results) -> str:
    """The level of the intervals.

    >>> percent_level({"protocol": {"level": 0.95}})
    '95 %'
    """
    return f"{100 * results['protocol'].get('level', 0.95):g} %"


def gain_picture(results: Results) -> list[Picture]:
    """The paired gain of every method at the main shots, seed by seed; nothing without a method beside scratch."""
    found = gains(results)
    if not found:
        return []
    scale = main_scale(results)
    said = "; ".join(f"{label(method)} {scale.gain(gain['mean'])}{scale.gain_unit}" for method, gain in found)
    dots = ""
    if seeds(results) > 1:
        dots = f" Small dots: each seed. Large marks and bars: their mean and its {percent_level(results)} interval."
    return [
        Picture(
            "gain",
            f"Paired gain over training from scratch: {said}.",
            f"Paired gain over training from scratch.{dots} Left of the line: worse than scratch; right of it: better.",
        )
    ]


def gains(results: Results) -> list[tuple[str, dict]]:
    """`(method, gain)` at the main shots, for every method that has one."""
    found = ((method, summary(results, method, main_shots(results))["gain"]) for method in results["methods"])
    return [(method, gain) for method, gain in found if gain and is_finite(gain["mean"])]


def accuracy_picture(results: Results) -> list[Picture]:
    """The verdict's metric against shots, one line a method."""
    scale, said = main_scale(results), []
    for method in results["methods"]:
        values = [(mean(results, method, shots, scale.metric.key)[0], shots) for shots in results["shots"]]
        parts = [f"{scale.value(value)}{scale.unit} with {shots}" for value, shots in values]
        said.append(f"{label(method)} {', '.join(parts)}")
    marks = ""
    if seeds(results) > 1:
        marks = f" Marks: mean; bars: {percent_level(results)} interval over {plural(seeds(results), 'seed')}."
        marks += " Small dots: each seed." if len(results["shots"]) == 1 else ""
    name = scale.metric.label
    return [
        Picture(
            "accuracy",
            f"{name} on the target test split by {labels_noun(results)}: {'; '.join(said)}.",
            f"{name[0].upper()}{name[1:]} on the target test split.{marks}",
        )
    ]


def curves_picture(results: Results) -> list[Picture]:
    """The verdict's metric on the validation split against the step; nothing without curves."""
    scale = main_scale(results)
    found = curves(results, scale.metric.key)
    if not found:
        return []
    ends = "; ".join(f"{label(c.method)} {scale.value(float(c.values[:, -1].mean()))}{scale.unit}" for c in found)
    stopped = sum(curve.stopped for curve in found)
    runs = sum(len(curve.values) for curve in found)
    caption = f"Validation split, {at_main_shots(results)}, at the chosen learning rates."
    caption += lines_note(results)
    if stopped:
        caption += f" {stopped} of {plural(runs, 'run')} stopped early; their last value is carried forward."
    alt = f"{scale.metric.label} on the validation split against the step; at the end: {ends}."
    return [Picture("curves", alt, caption)]


def lines_note(results: Results) -> str:
    """What the lines and bands of learning curves are; nothing for one seed.

    >>> lines_note({"protocol": {"seeds": 3}})
    ' Lines: mean over 3 seeds; bands: from the lowest seed to the highest.'
    """
    if seeds(results) == 1:
        return ""
    return f" Lines: mean over {plural(seeds(results), 'seed')}; bands: from the lowest seed to the highest."


def confusion_picture(results: Results) -> list[Picture]:
    """The confusion matrices of the judged method and the baseline, side by side; nothing in regression."""
    both = ((method, confusion(results, method)) for method in dict.fromkeys((judged(results), baseline(results))))
    found = {method: matrix for method, matrix in both if matrix is not None}
    if is_regression(results) or not found:
        return []
    said = "; ".join(f"{label(m)}: {int(c.trace())} of {int(c.sum())} right" for m, c in found.items())
    size = len(next(iter(found.values())))
    numbers = ""
    if size <= MOST_CLASSES_WITH_COUNTS:
        over = "" if seeds(results) == 1 else f", summed over {plural(seeds(results), 'seed')}"
        numbers = f" Numbers: test examples{over}; empty where there are none."
    caption = (
        "Rows: the true class; columns: the predicted class; colour: the share of the true class, on a scale that "
        f"draws out small shares.{numbers}{_confused(results)}"
    )
    return [Picture("confusion", f"Confusion matrices. {said}.", caption)]


def _confused(results: Results, most: int = 5) -> str:
    """A sentence on the most frequent confusions of the judged method; nothing where it made none."""
    matrix = confusion(results, judged(results))
    if matrix is None:
        return ""
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = np.where(np.eye(len(matrix), dtype=bool), 0.0, matrix / totals)
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(at, shares.shape) for at in order if shares.flat[at] > 0]
    names = [str(name) for name in results["target"]["classes"]]
    said = [f"{names[i]} taken for {names[j]} ({100 * shares[i, j]:.1f} %)" for i, j in pairs]
    return f" Most frequent confusions of {label(judged(results))}: {', '.join(said)}." if said else ""


MOST_CLASSES_WITH_COUNTS = 16
"""Beyond this the cells of a confusion matrix are too small for numbers."""
