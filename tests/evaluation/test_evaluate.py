"""Evaluation of a whole data set, and how it reads."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.evaluation import (
    Evaluation,
    EvaluationError,
    auroc,
    classification,
    combine,
    evaluate,
    predict,
    regression,
)
from tljax.models import mlp
from tljax.types import Batch, Model, Output

RNG = np.random.default_rng(0)
PARAMS = {"kernel": RNG.normal(size=(4, 3)).astype("float32")}
X, Y = RNG.normal(size=(53, 4)).astype("float32"), RNG.integers(0, 3, 53)


def linear():
    """A model that counts how often it is traced, and insists on evaluation mode."""
    traces = []

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        assert not train
        traces.append(x.shape)
        return Output(x @ params["kernel"], x)

    return Model(lambda key, x: PARAMS, apply), traces


def by_hand(x=X, y=Y):
    return (((x @ PARAMS["kernel"]).argmax(1)) == y).mean()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("batch_size", [1, 10, 53, 256])
def test_the_batch_size_does_not_matter(batch_size):
    model, _ = linear()
    found = evaluate(model, PARAMS, (X, Y), batch_size=batch_size)
    assert found["accuracy"] == pytest.approx(by_hand())
    assert (found["count"], found["invalid"]) == (53, 0)
    assert isinstance(found["accuracy"], float)
    assert isinstance(found["worst_class"], int)
    assert isinstance(found["confusion"], np.ndarray)
    logits = X @ PARAMS["kernel"]
    nll = -np.take_along_axis(np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)), Y[:, None], 1).mean()
    assert found["nll"] == pytest.approx(nll, rel=1e-5)


def test_one_program_for_all_lengths_and_calls():
    model, traces = linear()
    evaluate(model, PARAMS, (X, Y), batch_size=16)
    before = len([shape for shape in traces if shape[0] == 16])
    other = {"kernel": 2 * PARAMS["kernel"]}
    for n in (1, 5, 16, 17, 53):
        found = evaluate(model, other, (X[:n], Y[:n]), batch_size=16)
        assert found["count"] == n
        assert found["accuracy"] == pytest.approx(by_hand(X[:n], Y[:n]))
    assert len([shape for shape in traces if shape[0] == 16]) == before == 1


def test_data_may_be_an_object_with_weights_and_classes():
    model, _ = linear()
    data = SimpleNamespace(x=X, y=Y, classes=["cat", "dog", "eel"])
    assert "eel" in str(evaluate(model, PARAMS, data))
    weight = (np.arange(53) < 20).astype("float32")
    labels = np.where(weight > 0, Y, -1)
    found = evaluate(model, PARAMS, Batch(X, labels, weight), batch_size=16)
    assert found["count"] == 20
    assert found["accuracy"] == pytest.approx(by_hand(X[:20], Y[:20]))


def test_inputs_may_be_a_tree_and_integers():
    apply = lambda p, x, train=False: Output(x["a"] @ p["kernel"] + x["b"][:, None].astype(jnp.float32), x["a"])  # noqa: E731
    model = Model(lambda key, x: PARAMS, apply)
    x = {"a": jnp.asarray(X), "b": np.arange(53, dtype="uint8")}
    found = evaluate(model, PARAMS, (x, Y), batch_size=20)
    assert found["accuracy"] == pytest.approx(by_hand())
    output = predict(model, PARAMS, x, batch_size=20)
    np.testing.assert_allclose(output.logits, X @ PARAMS["kernel"] + np.arange(53)[:, None], rtol=1e-5)


@pytest.mark.slow
def test_the_metric_follows_the_labels():
    model, _ = linear()
    targets = X @ PARAMS["kernel"] + 1
    assert evaluate(model, PARAMS, (X, targets))["mae"] == pytest.approx(1.0, rel=1e-5)
    many = (X @ PARAMS["kernel"] > 0).astype("int32")
    assert evaluate(model, PARAMS, (X, many))["exact_match"] == 1.0
    one = {"kernel": PARAMS["kernel"][:, :1]}
    assert evaluate(model, one, (X, X @ one["kernel"][:, 0]))["r2"] == pytest.approx(1.0)
    assert evaluate(model, one, (X, (X @ one["kernel"][:, 0] > 0)))["accuracy"] == 1.0
    both = evaluate(model, PARAMS, (X, Y), metrics=combine(classification(3), auroc(3, capacity=53)))
    assert 0 < both["auroc"] < 1


def test_predict_covers_every_example_once():
    model, traces = linear()
    for size in (1, 7, 53, 100):
        output = predict(model, PARAMS, X, batch_size=size)
        np.testing.assert_allclose(output.logits, X @ PARAMS["kernel"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(output.features, X)
    assert predict(model, PARAMS, X[:3], batch_size=7).logits.shape == (3, 3)
    assert len(traces) == 4


def test_broken_logits_are_reported():
    model, _ = linear()
    broken = X.copy()
    broken[:4] = np.nan
    found = evaluate(model, PARAMS, (broken, Y), batch_size=16)
    assert found["invalid"] == 4
    assert np.isnan(found["nll"])
    assert "4 INVALID" in str(found)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), "needs examples"),
        ((X, Y[:5]), r"\(53, 4\), \(5,\)"),
        ((X, Y + 1), "from 1 to 3.*0 to 2"),
        ((X, Y - 1), "from -1"),
        ((X, np.stack([Y] * 3, 1)), "from 0 to 2.*0 to 1"),
        ((X, None), "no labels"),
        (X, "object with .x and .y"),
        ((X, 3), "first axis"),
    ],
)
def test_bad_data_raises(data, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(linear()[0], PARAMS, data)


@pytest.mark.slow
def test_table_of_classes():
    metric = classification(3)
    logits = jnp.array([[2.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [2.0, 0, 0]])
    found = jax.device_get(metric.compute(metric.update(metric.init(), logits, jnp.array([0, 0, 1, 1]))))
    text = str(Evaluation({k: v.item() if v.ndim == 0 else v for k, v in found.items()}, ("cat", "dog", "eel")))
    assert text == TABLE
    assert "->" not in str(Evaluation({"mae": 1.5, "count": 1}))
    assert str(Evaluation({"mae": 1.5, "count": 1})).splitlines() == ["1 example", "mae   1.5000"]


# Worked out by hand: p is 0.787 and 0.1065 twice.
TABLE = """\
4 examples
accuracy             75.0 %
balanced accuracy    75.0 %
macro recall         50.0 %
macro precision      55.6 %
macro f1             48.9 %
nll                  0.7395
brier                0.4083
ece                  3.7 %
worst class recall   50.0 %  (dog, n = 2)

class  examples  precision  recall      F1
cat           2       66.7   100.0    80.0
dog           2      100.0    50.0    66.7  <- worst
eel           0        0.0     0.0     0.0"""


def test_long_tables_show_the_worst():
    n = 30
    recall = np.linspace(1, 0.1, n)
    each = {f"class_{name}": recall for name in ("precision", "recall", "f1")}
    found = Evaluation({"count": n, "support": np.ones(n, int), "worst_class": n - 1, "worst_recall": 0.1, **each})
    lines = str(found).splitlines()
    assert lines[-1] == "(30 classes; the 20 of lowest recall are shown)"
    assert lines[-2].startswith("29 ")
    assert not any(line.startswith("9 ") for line in lines)


def test_an_evaluation_is_a_mapping():
    found = Evaluation({"accuracy": 0.5, "confusion": np.eye(2)})
    assert dict(found) == found._values
    assert repr(found) == "Evaluation({'accuracy': 0.5})"
    with pytest.raises(KeyError):
        found["auroc"]


def test_regression_reads_too():
    metric = regression()
    text = str(evaluate(linear()[0], {"kernel": PARAMS["kernel"][:, :1]}, (X, X[:, 0]), metrics=metric))
    assert "rmse" in text
    assert "class" not in text


def test_inputs_that_do_not_fit_the_model_are_told_as_such() -> None:
    model = mlp((4,), num_classes=2)
    params = model.init(jax.random.key(0), np.zeros((1, 3), np.float32))
    with pytest.raises(EvaluationError, match=r"mlp with these parameters cannot take inputs float32\[N, 5\]"):
        evaluate(model, params, (np.zeros((2, 5), np.float32), np.zeros(2, np.int32)))


def test_lists_are_rows() -> None:
    model = mlp((4,), num_classes=2)
    params = model.init(jax.random.key(0), np.zeros((1, 2), np.float32))
    x, y = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0, 1, 1]
    arrays = evaluate(model, params, (np.array(x, np.float32), np.array(y, np.int32)))
    assert evaluate(model, params, (x, y))["nll"] == pytest.approx(arrays["nll"])
