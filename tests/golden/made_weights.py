"""Weights that are made, not stored: a function of a leaf's name and shape, the same everywhere and forever."""

import zlib

import numpy as np


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1), by the SplitMix64 generator seeded with the name."""
    n = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 20)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)).reshape(shape)


def made_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A leaf of a torch model: kernels keep the variance, scales and variances are around 1, counters are 0."""
    if not shape:
        return np.zeros((), np.int64)
    x = uniform(name, shape)
    if name.endswith(("running_var", "gamma", "layer_scale", "layer_scale_parameter")):
        return 1 + 0.5 * x
    if len(shape) == 1:
        return 1 + 0.5 * x if name.endswith("weight") else 0.3 * x
    return x * np.float32(np.sqrt(3 / np.prod(shape[1:])))


def made_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All leaves by name."""
    return {
        name: made_weight(name, tuple(shape)).astype(np.float32 if shape else np.int64)
        for name, shape in shapes.items()
    }
