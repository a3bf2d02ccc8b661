"""What a model says of many examples, sentences in groups of like length, and how well."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from tljax.data.text import by_length
from tljax.evaluation import predict
from tljax.recipes.results import fitted_temperature, score_logits
from tljax.types import Model, Output, Params

SENTENCES = 64
"""Sentences that go through a model at once."""


def outputs(model: Model, params: Params, data: Any) -> Output:
    """The logits `[N, C]` and features `[N, D]` of all of `data`; short sentences are not padded to the longest.

    >>> from tljax.models import mlp
    >>> import jax
    >>> from tljax.data import Dataset
    >>> model, data = mlp((4,), num_classes=2), Dataset(np.zeros((3, 5)), np.array([0, 1, 1]))
    >>> outputs(model, model.init(jax.random.key(0), data.x), data).features.shape
    (3, 4)
    """
    if not isinstance(data.x, Mapping):
        return predict(model, params, data.x)
    found: list[np.ndarray] = [np.empty(0)] * 2
    for indices, part in by_length(data.x):
        whole = predict(model, params, part, batch_size=SENTENCES)
        for i, values in enumerate((whole.logits, whole.features)):
            if not found[i].size:
                found[i] = np.zeros((len(data), values.shape[1]), np.float32)
            found[i][indices] = np.asarray(values, np.float32)
    return Output(*map(jnp.asarray, found))


def scored(model: Model, params: Params, data: Any, valid: Any) -> dict[str, Any]:
    """Every metric of classes on `data`, as plain values; `valid` chooses the temperature of its calibration."""
    found, held_out = (np.asarray(outputs(model, params, part).logits) for part in (data, valid))
    return score_logits(found, data, fitted_temperature(held_out, valid))
