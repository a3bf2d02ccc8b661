"""Squared, absolute and Huber errors, against torch and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.objectives import (
    LabelError,
    Scene,
    absolute_errors,
    huber,
    huber_losses,
    mae,
    mse,
    squared_errors,
)
from tljax.types import Batch, Output

RNG = np.random.default_rng(1)
PREDICTED = RNG.normal(size=(7, 3)).astype("float32")
TARGETS = (2 * RNG.normal(size=(7, 3))).astype("float32")


def run(term, predictions, targets, weight=None):
    output, batch = Output(jnp.asarray(predictions), jnp.zeros((1, 1))), Batch(None, targets, weight)
    s = Scene({"train": output}, {"train": batch}, {}, lambda p, x: output, jnp.int32(0), jax.random.key(0))
    loss, _, metrics = term.apply(term.init(s.key, s), s)
    return float(loss), {k: float(v) for k, v in metrics.items()}


@pytest.mark.parametrize(
    ("term", "name", "make"),
    [
        (mse(), "mse", lambda nn: nn.MSELoss()),
        (mae(), "mae", lambda nn: nn.L1Loss()),
        (huber(), "huber", lambda nn: nn.HuberLoss()),
        (huber(delta=0.3), "huber", lambda nn: nn.HuberLoss(delta=0.3)),
    ],
)
def test_agrees_with_torch(term, name, make):
    torch = pytest.importorskip("torch")
    expected = make(torch.nn)(torch.tensor(PREDICTED), torch.tensor(TARGETS)).item()
    loss, metrics = run(term, PREDICTED, TARGETS)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert metrics == {name: loss}


def test_by_hand():
    predictions, targets = jnp.array([[0.0], [0.0], [0.0]]), jnp.array([1.0, -3.0, 0.5])
    np.testing.assert_array_equal(squared_errors(predictions, targets), [1.0, 9.0, 0.25])
    np.testing.assert_array_equal(absolute_errors(predictions, targets), [1.0, 3.0, 0.5])
    np.testing.assert_array_equal(huber_losses(predictions, targets), [0.5, 2.5, 0.125])
    np.testing.assert_array_equal(huber_losses(predictions, targets, delta=2.0), [0.5, 4.0, 0.125])


@pytest.mark.parametrize("losses", [squared_errors, absolute_errors, huber_losses])
def test_one_column_pairs_up_and_never_broadcasts(losses):
    """[B, 1] against [B] would spread to [B, B]: every prediction against every target."""
    column, flat = PREDICTED[:, :1], TARGETS[:, 0]
    np.testing.assert_array_equal(losses(column, flat), losses(column, flat[:, None]))
    assert losses(column, flat).shape == (7,)


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [((4, 3), (4,)), ((4,), (4,)), ((4, 1), (3,)), ((4, 3), (4, 1)), ((4, 4), (4,))],
)
def test_other_shapes_raise(predictions, targets):
    with pytest.raises(LabelError, match="found predictions"):
        jax.eval_shape(squared_errors, jnp.zeros(predictions), jnp.zeros(targets))


@pytest.mark.parametrize("term", [mse(), mae(), huber()])
def test_padding_never_counts(term):
    weight = jnp.array([1.0] * 5 + [0.0] * 2)
    broken = TARGETS.copy()
    broken[5:] = np.nan
    assert run(term, PREDICTED, broken, weight)[0] == pytest.approx(run(term, PREDICTED[:5], TARGETS[:5])[0], rel=1e-6)
    assert run(term, PREDICTED, broken, jnp.zeros(7))[0] == 0.0
    assert np.isnan(run(term, PREDICTED, broken)[0])


def test_integer_and_half_precision_targets():
    assert float(squared_errors(jnp.zeros((1, 1), jnp.bfloat16), jnp.array([3]))[0]) == 9.0
    assert squared_errors(jnp.zeros((1, 1), jnp.bfloat16), jnp.zeros((1, 1), jnp.float16)).dtype == jnp.float32


def test_descriptions_and_options():
    assert [str(t) for t in (mse(), mae(stream="target"), huber(delta=0.5))] == [
        "mse()",
        "mae(stream='target')",
        "huber(delta=0.5)",
    ]
    with pytest.raises(LabelError, match="delta > 0"):
        huber_losses(PREDICTED, TARGETS, delta=0.0)
