"""The closed-form inputs of tests/golden/adaptation.json, NumPy float64, and its values.

Features `fs`, `ft` `[6, 5]`; logits `gs`, `gt`, `gs2`, `gt2` `[6, 4]`; classes `y` `[6]`.
"""

import json
import pathlib

import numpy as np

_VALUES = json.loads((pathlib.Path(__file__).parent / "golden" / "adaptation.json").read_text())


def A(n, d, a, b, c, s=1.0):  # noqa: N802
    """`[n, d]`: ``s sin(a i + b j + c + i j / 2)``, i and j from 0."""
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return s * np.sin(a * i + b * j + c + 0.5 * i * j)


def golden(name):
    """The value called `name`."""
    return _VALUES[name]


_MADE = {
    "fs": lambda: A(6, 5, 0.7, 1.3, 0.2),
    "ft": lambda: A(6, 5, 1.1, 0.4, 0.9, 1.5),
    "gs": lambda: A(6, 4, 0.5, 2.1, 0.3, 2),
    "gt": lambda: A(6, 4, 1.7, 0.6, 1.1, 2),
    "gs2": lambda: A(6, 4, 0.9, 1.4, 0.5, 2),
    "gt2": lambda: A(6, 4, 0.3, 1.9, 0.7, 2),
    "y": lambda: np.array([0, 1, 2, 3, 0, 1]),
}


def __getattr__(name):
    """Arrays of its own for every module that imports them: where a program that was traced under x64 holds a NumPy
    array, JAX 0.10.2 takes that same array for float64 ever after, with x64 or without."""
    if name not in _MADE:
        raise AttributeError(name)
    return _MADE[name]()
