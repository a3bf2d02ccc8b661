"""Which pictures the results give rise to, and what they say in words: captions, and texts for who cannot see them."""

from tljax.evaluation.report.blocks import Picture
from tljax.evaluation.report.numbers import count, plural
from tljax.evaluation.report.results import (
    BASELINE,
    Results,
    confusion,
    curves,
    is_regression,
    judged,
    label,
    labels_noun,
    main_scale,
    mean,
    most_shots,
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
    """The paired gain of every method at the most shots, seed by seed; nothing without a method beside scratch."""
    found = gains(results)
    if not found:
        return []
    scale = main_scale(results)
    said = "; ".join(f"{label(method)} {scale.gain(gain['mean'])}{scale.gain_unit}" for method, gain in found)
    bars = (
        "" if seeds(results) == 1 else f" Large marks and bars: their mean and its {percent_level(results)} interval."
    )
    return [
        Picture(
            "gain",
            f"Paired gain over training from scratch: {said}.",
            f"Paired gain over training from scratch. Small dots: the gain in each seed.{bars} "
            "Left of the line transfer hurt, right of it helped.",
        )
    ]


def gains(results: Results) -> list[tuple[str, dict]]:
    """`(method, gain)` at the most shots, for every method that has one."""
    found = ((method, summary(results, method, most_shots(results))["gain"]) for method in results["methods"])
    return [(method, gain) for method, gain in found if gain]


def accuracy_picture(results: Results) -> list[Picture]:
    """The verdict's metric against shots, one line a method."""
    scale, said = main_scale(results), []
    for method in results["methods"]:
        values = [(mean(results, method, shots, scale.metric.key)[0], shots) for shots in results["shots"]]
        parts = [f"{scale.value(value)}{scale.unit} with {shots}" for value, shots in values]
        said.append(f"{label(method)} {', '.join(parts)}")
    bars = (
        ""
        if seeds(results) == 1
        else f"; bars: {percent_level(results)} interval over {plural(seeds(results), 'seed')}"
    )
    name = scale.metric.label
    return [
        Picture(
            "accuracy",
            f"{name} on the target test split by {labels_noun(results)}: {'; '.join(said)}.",
            f"{name[0].upper()}{name[1:]} on the target test split. Marks: mean{bars}.",
        )
    ]


def curves_picture(results: Results) -> list[Picture]:
    """The verdict's metric on the validation split against the step; nothing without curves."""
    scale = main_scale(results)
    found = curves(results, scale.metric.key)
    if not found:
        return []
    ends = "; ".join(f"{label(c.method)} {scale.value(float(c.values[:, -1].mean()))}{scale.unit}" for c in found)
    shots, stopped = most_shots(results), sum(curve.stopped for curve in found)
    runs = sum(len(curve.values) for curve in found)
    caption = f"Validation split, {count(shots)} {labels_noun(results, shots)}, at the chosen learning rates."
    if seeds(results) > 1:
        caption += f" Lines: mean over {plural(seeds(results), 'seed')}; bands: from the lowest seed to the highest."
    if stopped:
        caption += f" {stopped} of {plural(runs, 'run')} stopped early; their last value is carried forward."
    alt = f"{scale.metric.label} on the validation split against the step; at the end: {ends}."
    return [Picture("curves", alt, caption)]


def confusion_picture(results: Results) -> list[Picture]:
    """The confusion matrices of the judged method and scratch, side by side; nothing in regression."""
    found = {m: confusion(results, m) for m in dict.fromkeys((judged(results), BASELINE))}
    found = {method: matrix for method, matrix in found.items() if matrix is not None}
    if is_regression(results) or not found:
        return []
    said = "; ".join(f"{label(m)}: {int(c.trace())} of {int(c.sum())} right" for m, c in found.items())
    size = len(next(iter(found.values())))
    numbers = ""
    if size <= MOST_CLASSES_WITH_COUNTS:
        over = "" if seeds(results) == 1 else f", summed over {plural(seeds(results), 'seed')}"
        numbers = f" Numbers: test examples{over}; empty where there are none."
    caption = f"Rows: the true class; columns: the predicted class; colour: the share of the true class.{numbers}"
    return [Picture("confusion", f"Confusion matrices. {said}.", caption)]


MOST_CLASSES_WITH_COUNTS = 16
"""Beyond this the cells of a confusion matrix are too small for numbers."""
