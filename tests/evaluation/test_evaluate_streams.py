"""A stream is evaluated as its examples in memory are."""

import jax.numpy as jnp
import numpy as np

from tljax.data import stream
from tljax.evaluation import evaluate
from tljax.types import Model, Output


def test_a_stream_is_evaluated_as_arrays_are():
    x = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    y = x.argmax(1).astype(np.int32)
    y[:4] = 0
    model = Model(init=lambda key, x: {}, apply=lambda p, x, **_: Output(x, x))
    memory = evaluate(model, {}, (jnp.asarray(x), jnp.asarray(y)), batch_size=4)
    streamed = evaluate(model, {}, stream(list(zip(x, y))), batch_size=4)
    assert streamed["accuracy"] == memory["accuracy"]
    assert streamed["confusion"].tolist() == memory["confusion"].tolist()
