"""The result of an evaluation, and how it reads."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

MOST_CLASSES = 20
"""A table of more classes shows those of lowest recall."""
_PERCENT = ("accuracy", "precision", "recall", "f1", "ece", "auroc", "exact_match", "top_")
_FIRST = ("accuracy", "balanced_accuracy", "exact_match", "macro_recall", "macro_precision", "macro_f1")
_NEXT = ("auroc", "nll", "brier", "ece")


class Evaluation(Mapping[str, Any]):
    """The metrics of a model on a data set, by name: numbers, and NumPy arrays for what is counted by class.

    >>> found = Evaluation({"accuracy": 0.75, "nll": 0.5, "count": 4})
    >>> found["accuracy"], len(found)
    (0.75, 3)
    >>> print(found)
    4 examples
    accuracy   75.0 %
    nll        0.5000
    """

    def __init__(self, values: Mapping[str, Any], classes: tuple[str, ...] = ()):
        self._values, self.classes = dict(values), classes

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        numbers = {name: value for name, value in self.items() if np.ndim(value) == 0}
        return f"Evaluation({numbers})"

    def __str__(self) -> str:
        return "\n".join([_head(self), *_numbers(self), *_by_class(self)])

    def name_of(self, index: int) -> str:
        """The name of a class, or its number where there are no names.

        >>> Evaluation({}, ("cat", "dog")).name_of(1), Evaluation({}).name_of(1)
        ('dog', '1')
        """
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)


def _head(found: Evaluation) -> str:
    count, invalid = found.get("count", 0), found.get("invalid", 0)
    text = f"{count} example{'s' * (count != 1)}"
    return f"{text}, of which {invalid} INVALID (logits not finite, or labels outside)" if invalid else text


def _numbers(found: Evaluation) -> list[str]:
    """One line a scalar, the usual ones first; averages that repeat the accuracy stay out."""
    skipped = {"count", "invalid", "worst_class", "worst_recall", "worst_support"}
    scalars = [n for n, v in found.items() if np.ndim(v) == 0 and n not in skipped]
    scalars = [n for n in scalars if not n.startswith(("micro_", "weighted_"))]
    usual = [n for n in (*_FIRST, *_NEXT) if n in scalars]
    names = usual + [n for n in scalars if n not in usual]
    lines = [(name.replace("_", " "), _number(name, found[name])) for name in names]
    if found.get("worst_class", -1) >= 0:
        of = f", n = {found['worst_support']}" if "worst_support" in found else ""
        worst = f"{_number('recall', found['worst_recall'])}  ({found.name_of(found['worst_class'])}{of})"
        lines.append(("worst class recall", worst))
    width = max((len(name) for name, _ in lines), default=0)
    return [f"{name:<{width}}   {value}" for name, value in lines]


def _number(name: str, value: float) -> str:
    if any(word in name for word in _PERCENT):
        return f"{100 * value:.1f} %"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def _by_class(found: Evaluation) -> list[str]:
    """A table with one line a class; the worst is marked."""
    if "class_recall" not in found:
        return []
    support, order = found["support"], np.arange(len(found["support"]))
    if len(order) > MOST_CLASSES:
        present = np.where(support > 0, found["class_recall"], np.inf)
        order = np.sort(np.argsort(present, kind="stable")[:MOST_CLASSES])
    names = [found.name_of(int(i)) for i in order]
    width = max(len("class"), *map(len, names))
    lines = ["", f"{'class':<{width}}  examples  precision  recall      F1"]
    for i, name in zip(order, names):
        rates = (found[f"class_{rate}"][i] for rate in ("precision", "recall", "f1"))
        precision, recall, f1 = (f"{100 * rate:.1f}" for rate in rates)
        mark = "  <- worst" if i == found["worst_class"] else ""
        lines.append(f"{name:<{width}}  {support[i]:>8}  {precision:>9}  {recall:>6}  {f1:>6}{mark}")
    if len(support) > len(order):
        lines.append(f"({len(support)} classes; the {len(order)} of lowest recall are shown)")
    return lines
