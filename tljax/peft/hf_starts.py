"""PiSSA and OLoRA: the start that was subtracted from the base, computed again from the base as peft does on loading.

    PiSSA: b0 = U sqrt(S / s), a0 = sqrt(S / s) V^T of the largest singular values;  OLoRA: b0, a0 = Q, R

Only their product matters, which does not depend on the signs of singular vectors.

Reference: Meng et al., PiSSA, arXiv 2404.02948; Büyükakyüz, OLoRA, arXiv 2406.01775.
"""

from typing import Any

import numpy as np

from tljax.peft.adapter import PeftError


def start_of(start: object, weight: np.ndarray, rank: int, scale: float) -> tuple[np.ndarray, np.ndarray] | None:
    """``A0`` `[r, in]` and ``B0`` `[out, r]` for a `weight` `[out, in]`; None where adapters start at the base.

    Raises `PeftError` for a weight that is no matrix.

    >>> start_of("gaussian", np.eye(2), 1, 1.0) is None
    True
    >>> a, b = start_of("pissa", np.diag([3.0, 1.0]), 1, 2.0)
    >>> np.round(2.0 * b @ a, 5)
    array([[3., 0.],
           [0., 0.]])
    """
    if start not in ("pissa", "olora"):
        return None
    if weight.ndim != 2:
        raise PeftError(f"{start} starts from a matrix, found a weight of shape {list(weight.shape)}")
    wide: Any = np.asarray(weight, np.float32 if weight.dtype.itemsize < 8 else np.float64)
    if start == "olora":
        q, r = np.linalg.qr(wide)
        return r[:rank], q[:, :rank]
    u, s, v = np.linalg.svd(wide, full_matrices=False)
    root = np.sqrt(s[:rank] / wide.dtype.type(scale))
    return root[:, None] * v[:rank], u[:, :rank] * root
