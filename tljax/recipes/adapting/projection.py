"""Features of two domains on a plane, for the eye."""

from typing import Any

import numpy as np

from tljax.recipes.options import SettingsError

PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours count."""


def on_a_plane(features: np.ndarray, how: str) -> tuple[np.ndarray, str]:
    """Positions `[N, 2]` of features `[N, D]`, scaled to -1..1, and what made them.

    `how`: "tsne" by scikit-learn, "pca" onto the two directions of most variance, or "auto": t-SNE where scikit-learn
    is installed. Raises `SettingsError` for "tsne" without it.

    >>> on_a_plane(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), "pca")[0][:, 0].tolist()
    [-1.0, 0.0, 1.0]
    """
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    found = _principal(x)
    made = "PCA"
    if how != "pca" and len(x) > 4 and (nearby := _tsne(x, found, required=how == "tsne")) is not None:
        found, made = nearby, "t-SNE"
    found = found - (found.max(axis=0) + found.min(axis=0)) / 2
    size = np.abs(found).max()
    return found / (size if size > 0 else 1.0), made


def _principal(x: np.ndarray) -> np.ndarray:
    """Onto the first two right singular vectors, of which the largest entry is positive, so that signs are settled."""
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    first = directions[:2]
    first = first * np.sign(first[np.arange(len(first)), np.abs(first).argmax(axis=1)])[:, None]
    found = x @ first.T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _tsne(x: np.ndarray, start: np.ndarray, *, required: bool) -> np.ndarray | None:
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        if not required:
            return None
        raise SettingsError("projection 'tsne' needs scikit-learn: pip install 'tljax[demo]'") from error
    deviation = start[:, 0].std()
    start = (start / (deviation if deviation > 0 else 1.0) * 1e-4).astype(np.float32)
    made: Any = TSNE(perplexity=min(PERPLEXITY, (len(x) - 1) / 3), init=start, random_state=0)
    return np.asarray(made.fit_transform(x.astype(np.float32)), np.float64)
