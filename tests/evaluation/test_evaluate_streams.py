"""A stream is evaluated as its examples in memory are."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.data import DataError, stream
from tljax.evaluation import evaluate, predict
from tljax.evaluation.evaluate import EvaluationError
from tljax.types import Model, Output

PLAIN = Model(init=lambda key, x: {}, apply=lambda p, x, **_: Output(x, 2 * x))


def test_a_stream_is_evaluated_as_arrays_are():
    x = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    y = x.argmax(1).astype(np.int32)
    y[:4] = 0
    memory = evaluate(PLAIN, {}, (jnp.asarray(x), jnp.asarray(y)), batch_size=4)
    streamed = evaluate(PLAIN, {}, stream(list(zip(x, y))), batch_size=4)
    assert streamed["accuracy"] == memory["accuracy"]
    assert streamed["confusion"].tolist() == memory["confusion"].tolist()


@pytest.mark.parametrize("batch_size", [4, 11, 20])
def test_outputs_on_a_stream_are_those_on_arrays(batch_size: int) -> None:
    x = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)
    found = predict(PLAIN, {}, stream(list(x), y=None), batch_size=batch_size)
    assert (found.logits.tolist(), found.features.tolist()) == (x.tolist(), (2 * x).tolist())
    labelled = predict(PLAIN, {}, stream(list(zip(x, range(11))), subset=[7, 2, 9]), batch_size=batch_size)
    assert labelled.logits.tolist() == x[[7, 2, 9]].tolist()


def test_a_stream_that_cannot_be_read_is_told() -> None:
    numbers = stream([np.ones(3), np.ones(2), np.ones(3)], y=None, name="numbers")
    with pytest.raises(DataError, match="numbers: example 1 has the shapes"):
        predict(PLAIN, {}, numbers)
    with pytest.raises(EvaluationError, match="a batch size of at least 1, found 1 and 0"):
        predict(PLAIN, {}, numbers, batch_size=0)
