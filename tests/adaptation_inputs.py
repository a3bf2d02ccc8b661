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


fs = A(6, 5, 0.7, 1.3, 0.2)
ft = A(6, 5, 1.1, 0.4, 0.9, 1.5)
gs = A(6, 4, 0.5, 2.1, 0.3, 2)
gt = A(6, 4, 1.7, 0.6, 1.1, 2)
gs2 = A(6, 4, 0.9, 1.4, 0.5, 2)
gt2 = A(6, 4, 0.3, 1.9, 0.7, 2)
y = np.array([0, 1, 2, 3, 0, 1])
