"""Validators by name: what each computes, what it needs, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tljax import scores
from tljax.evaluation import VALIDATORS, Answers, EvaluationError, validator

RNG = np.random.default_rng(0)


def answers(n, labels=True, shift=0.0):
    y = RNG.integers(0, 4, n) if labels else None
    return Answers(
        RNG.normal(size=(n, 4)).astype(np.float32), RNG.normal(size=(n, 3)).astype(np.float32) + np.float32(shift), y
    )


GIVEN = {"source": answers(50), "target": answers(40, shift=0.5), "source_train": answers(60, labels=False)}


def test_every_number_is_that_of_its_function():
    source, target = GIVEN["source"], GIVEN["target"]
    p = softmax(target.logits, -1)
    right = source.logits.argmax(-1) == source.labels
    expected = {
        "source_accuracy": right.mean(),
        "source_likelihood": log_softmax(source.logits, -1)[np.arange(50), source.labels].mean(),
        "certainty": np.mean(np.sum(p * np.log(p), -1)),
        "im": np.mean(np.sum(p * np.log(p), -1)) - np.sum(p.mean(0) * np.log(p.mean(0))),
        "bnm": np.linalg.norm(p, "nuc") / 40,
        "snd": scores.soft_density(p),
        "dev": scores.dev(1.0 - right, source.features, GIVEN["source_train"].features, target.features),
        "oracle_accuracy": np.mean(target.logits.argmax(-1) == target.labels),
    }
    found = validator("im")(GIVEN)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_the_likelihood_of_answers_that_are_surely_wrong_is_a_number():
    logits = np.array([[300.0, 0.0], [0.0, 5.0]], np.float32)
    found = validator("source_likelihood", also=[])({"source": Answers(logits, None, np.array([1, 1]))})
    assert found == {"source_likelihood": pytest.approx(-150.00336, rel=1e-6)}


def test_more_is_better_of_all():
    """Answers that are right, sure and well spread against a constant one."""
    y = np.arange(40) % 4
    good = {name: Answers(9.0 * np.eye(4)[y[: len(GIVEN[name].logits)]], np.eye(4)[y], y) for name in ("target",)}
    good["source"] = good["target"]
    flat = {name: Answers(np.eye(4)[[0] * 40] * 0.1, np.eye(4)[y], y) for name in ("source", "target")}
    best, worst = validator("oracle")(good), validator("oracle")(flat)
    for name in set(best) - {"snd"}:
        assert best[name] > worst[name], name


def test_the_order_of_examples_does_not_matter():
    turned = {name: Answers(*(None if part is None else part[::-1] for part in given)) for name, given in GIVEN.items()}
    for (name, a), b in zip(validator("im")(GIVEN).items(), validator("im")(turned).values()):
        np.testing.assert_allclose(a, b, rtol=2e-4, err_msg=name)


def test_names():
    assert validator("Entropy") == validator("certainty")
    assert {validator(name).name for name in VALIDATORS} == set(VALIDATORS)
    with pytest.raises(EvaluationError, match=r"no validator 'bmn'; there are source_accuracy, .*mean 'bnm'"):
        validator("bmn")
    with pytest.raises(EvaluationError, match=r"no validator 'source'; .*mean 'source_accuracy'"):
        validator("source")
    with pytest.raises(EvaluationError, match="no validator 'snds'"):
        validator("im", also=["snds"])
    with pytest.raises(EvaluationError, match="at_least is an accuracy on the source, from 0 to 1; found 70"):
        validator("im", at_least=70)
    with pytest.raises(EvaluationError, match="'source_accuracy' reads the validation stream 'source'"):
        validator("im", at_least=0.7).computed({"target": False})


def test_what_is_computed():
    everywhere = {"a": True, "b": False}
    of_two = validator("im", source="a", target="b")
    assert of_two.computed(everywhere) == VALIDATORS[:6]
    assert validator("im", source="a", target="b", also=["source_accuracy"]).computed(everywhere) == (
        "source_accuracy",
        "im",
    )
    with pytest.raises(EvaluationError, match="'dev' reads the validation stream 'source_train'; there are: 'a', 'b'"):
        validator("im", source="a", target="b", also=["dev"]).computed(everywhere)
    with pytest.raises(EvaluationError, match="'source', 'b', 'source_train', and no 'a'"):
        validator("im", target="b").computed(everywhere)


def test_unknown_answers_are_nan_where_they_are_read():
    target = GIVEN["target"]
    broken = target.logits.copy()
    broken[3, 1] = np.inf
    found = validator("im")(GIVEN | {"target": target._replace(logits=broken)})
    assert np.isfinite([found["source_accuracy"], found["source_likelihood"]]).all()
    assert np.isnan([found[name] for name in ("certainty", "im", "bnm", "snd", "dev", "oracle_accuracy")]).all()
    found = validator("im")(GIVEN | {"target": target._replace(features=target.features * np.float32(np.nan))})
    assert [name for name, value in found.items() if np.isnan(value)] == ["dev"]


def test_half_precision():
    narrow = {
        name: given._replace(
            logits=np.asarray(jnp.bfloat16(given.logits)), features=np.asarray(jnp.bfloat16(given.features))
        )
        for name, given in GIVEN.items()
    }
    for (name, a), b in zip(validator("im")(narrow).items(), validator("im")(GIVEN).values()):
        np.testing.assert_allclose(a, b, rtol=0.05, err_msg=name)
