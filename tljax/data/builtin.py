"""Real data sets that come with scikit-learn, by name. Nothing is downloaded."""

from collections.abc import Callable

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import Raw


def _from_sklearn(function: str) -> Raw:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f"the built-in data set {function!r} comes with scikit-learn: pip install 'tljax[demo]'"
        ) from error
    bunch = getattr(datasets, f"load_{function}")()
    names = tuple(map(str, bunch["target_names"])) if "target_names" in bunch else None
    return Raw({"train": bunch["data"].astype(np.float32)}, {"train": bunch["target"]}, names)


def _digits() -> Raw:
    """1,797 handwritten digits, 8x8 pixels of 0 .. 16."""
    raw = _from_sklearn("digits")
    return raw._replace(x={"train": raw.x["train"].reshape(-1, 8, 8, 1) / np.float32(16)})


BUILT_IN: dict[str, Callable[[], Raw]] = {
    "digits": _digits,
    "wine": lambda: _from_sklearn("wine"),
    "breast_cancer": lambda: _from_sklearn("breast_cancer"),
    "diabetes": lambda: _from_sklearn("diabetes"),
}
"""Readers by name: another data set is one more line."""
