"""How the metrics are called and how their values are written: every number of the report passes through here.

Shares (accuracy, recall, calibration error ...) are written in percent, gains in them in percentage points; what has
a unit of its own keeps it. A minus sign is a real one, so that signs line up in tables.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

MISSING = "–"


class Metric(NamedTuple):
    """One metric: its `key` in the results, how people call it, and which direction is better."""

    key: str
    label: str
    percent: bool = False
    """Whether it is a share in [0, 1] and is written in percent."""
    higher_is_better: bool | None = None
    """None where the report does not know, and then marks no best."""
    decimals: int | None = None
    """Digits after the point; None means three significant digits."""

    @property
    def heading(self) -> str:
        """The label with its unit, and an arrow towards better.

        >>> metric("nll").heading, metric("accuracy").heading
        ('NLL ↓', 'accuracy % ↑')
        """
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.label}{' %' if self.percent else ''}{arrow}"


_METRICS = (
    Metric("accuracy", "accuracy", True, True, 1),
    Metric("macro_recall", "macro recall", True, True, 1),
    Metric("macro_precision", "macro precision", True, True, 1),
    Metric("macro_f1", "macro F1", True, True, 1),
    Metric("worst_recall", "worst class", True, True, 1),
    Metric("nll", "NLL", False, False, 3),
    Metric("brier", "Brier", False, False, 3),
    Metric("ece", "ECE", True, False, 1),
    Metric("ece_mass", "ECE equal mass", True, False, 1),
    Metric("ece_tempered", "ECE tempered", True, False, 1),
    Metric("rmse", "RMSE", False, False),
    Metric("mae", "MAE", False, False),
    Metric("r2", "R²", False, True, 3),
)


def metric(key: str) -> Metric:
    """The metric called `key`; one that the report does not know is written under its own name, best unmarked.

    >>> metric("macro_f1").label, metric("top5_accuracy").label
    ('macro F1', 'top5 accuracy')
    """
    return next((known for known in _METRICS if known.key == key), Metric(key, key.replace("_", " ")))


def in_order(keys: Iterable[str]) -> list[Metric]:
    """The metrics called `keys`, in the report's order; unknown ones last.

    >>> [m.key for m in in_order(["ece", "mine", "accuracy"])]
    ['accuracy', 'ece', 'mine']
    """
    rank = {known.key: position for position, known in enumerate(_METRICS)}
    return [metric(key) for key in sorted(keys, key=lambda key: rank.get(key, len(rank)))]


class Scale(NamedTuple):
    """How the values of one metric are written throughout a report, so that they compare digit by digit."""

    metric: Metric
    decimals: int | None
    """None means scientific notation with three digits."""

    def value(self, number: float | None) -> str:
        """`number` in the metric's unit.

        >>> scale(metric("accuracy"), []).value(0.91249)
        '91.2'
        """
        return self._write(number, sign=False)

    def gain(self, number: float | None) -> str:
        """A difference, with its sign, which stays when it rounds to zero: the ends of intervals need it.

        >>> accuracy = scale(metric("accuracy"), [])
        >>> accuracy.gain(0.05), accuracy.gain(-0.0501), accuracy.gain(-0.0001), accuracy.gain(0.0)
        ('+5.0', '−5.0', '−0.0', '0.0')
        """
        return self._write(number, sign=True)

    @property
    def factor(self) -> float:
        """What a value is multiplied by before it is written or drawn."""
        return 100.0 if self.metric.percent else 1.0

    @property
    def unit(self) -> str:
        """What follows a value in a sentence.

        >>> scale(metric("accuracy"), []).unit, scale(metric("rmse"), []).unit
        (' %', '')
        """
        return " %" if self.metric.percent else ""

    @property
    def gain_unit(self) -> str:
        """What follows a difference in a sentence."""
        return " points" if self.metric.percent else ""

    def _write(self, number: float | None, *, sign: bool) -> str:
        if number is None or math.isnan(number):
            return MISSING
        if math.isinf(number):
            return "∞" if number > 0 else "−∞"
        number = self.factor * number
        digits = f"{number:.2e}" if self.decimals is None else f"{number:.{self.decimals}f}"
        if not sign and float(digits) == 0:
            return digits.lstrip("-")
        return (f"+{digits}" if sign and number > 0 else digits).replace("-", "−")


def scale(metric: Metric, values: Iterable[float | None]) -> Scale:
    """The way to write `metric`, of which `values` are the means in this report.

    >>> scale(Metric("rmse", "RMSE"), [1.234, 0.5]).value(0.5)
    '0.50'
    >>> scale(Metric("rmse", "RMSE"), [1.2e7]).value(1.2e7)
    '1.20e+07'
    """
    if metric.decimals is not None:
        return Scale(metric, metric.decimals)
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    if largest == 0:
        return Scale(metric, 3)
    if not 1e-4 <= largest < 1e6:
        return Scale(metric, None)
    return Scale(metric, max(0, 2 - math.floor(math.log10(largest))))


def count(number: int) -> str:
    """A whole number with its thousands set apart.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`number` and `noun`, which takes an s unless there is one.

    >>> plural(1, "seed"), plural(5, "seed")
    ('1 seed', '5 seeds')
    """
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def size(number: int) -> str:
    """A number of bytes, with three digits.

    >>> size(812), size(90982284), size(118732)
    ('812 B', '91.0 MB', '119 kB')
    """
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB"):
        if value >= 999.5:
            value, unit = value / 1000, larger
    digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def milliseconds(number: float | None) -> str:
    """A time in ms, with three digits.

    >>> milliseconds(0.02389), milliseconds(1992.2), milliseconds(None)
    ('0.0239', '1992', '–')
    """
    if number is None:
        return MISSING
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def operations(number: float | None) -> str:
    """A number of floating-point operations, with three digits.

    >>> operations(3758329.0), operations(1.2e12), operations(None)
    ('3.76 M', '1.20 T', '–')
    """
    if number is None:
        return MISSING
    value, unit = float(number), ""
    for larger in ("k", "M", "G", "T", "P"):
        if value >= 999.5:
            value, unit = value / 1000, larger
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}".strip()


def seconds_text(number: float | None) -> str:
    """A time in seconds or minutes.

    >>> seconds_text(0.256), seconds_text(12.3), seconds_text(200.0), seconds_text(None)
    ('0.26 s', '12 s', '3.3 min', '–')
    """
    if number is None:
        return MISSING
    if number >= 120:
        return f"{number / 60:.1f} min"
    return f"{number:.2g} s" if number < 10 else f"{number:.0f} s"
