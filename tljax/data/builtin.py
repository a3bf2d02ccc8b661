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


def _half(turned: bool) -> Raw:
    """Every other handwritten digit: the first, third ... as they are, or the second, fourth ... turned."""
    raw = _digits()
    x, y = raw.x["train"][turned::2], raw.y["train"][turned::2]
    return raw._replace(x={"train": _turned(x) if turned else x}, y={"train": y})


def _turned(x: np.ndarray, degrees: float = 35.0) -> np.ndarray:
    """Images `[N, H, W, C]` turned about their middle, between pixels by bilinear interpolation; 0 outside."""
    height, width = x.shape[1:3]
    angle = np.deg2rad(degrees)
    row, column = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    from_row = np.cos(angle) * row + np.sin(angle) * column + (height - 1) / 2
    from_column = np.cos(angle) * column - np.sin(angle) * row + (width - 1) / 2
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    top, left = np.floor(from_row).astype(int), np.floor(from_column).astype(int)
    down, right = from_row - top, from_column - left
    found = np.zeros(x.shape, np.float64)
    for i, j, share in ((0, 0, (1 - down) * (1 - right)), (0, 1, (1 - down) * right),
                        (1, 0, down * (1 - right)), (1, 1, down * right)):  # fmt: skip
        rows, columns = (np.clip(at + 2, 0, n + 3) for at, n in ((top + i, height), (left + j, width)))
        found += share[None, :, :, None] * padded[:, rows, columns]
    return found.astype(np.float32)


BUILT_IN: dict[str, Callable[[], Raw]] = {
    "digits": _digits,
    "digits-plain": lambda: _half(turned=False),
    "digits-turned": lambda: _half(turned=True),
    "wine": lambda: _from_sklearn("wine"),
    "breast_cancer": lambda: _from_sklearn("breast_cancer"),
    "diabetes": lambda: _from_sklearn("diabetes"),
}
"""Readers by name: another data set is one more line."""
