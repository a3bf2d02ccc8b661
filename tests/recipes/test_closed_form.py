"""Heads in closed form, in models of several kinds, and LP-FT."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.models import mlp
from tljax.objectives import cross_entropy
from tljax.plans import linear_probe
from tljax.probes import ridge
from tljax.recipes import HeadError, closed_form_head, lp_ft
from tljax.training import fit
from tljax.types import Model, Output

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(6, 3))


def draw(n):
    x = RNG.normal(size=(n, 6)).astype(np.float32)
    return x, (x @ MAP + 0.7 * RNG.normal(size=(n, 3))).argmax(1).astype(np.int32)


X, Y = draw(120)
UNSEEN = draw(2000)
NET = mlp((16,), num_classes=3)
START = NET.init(jax.random.key(0), X)


def nll(params):
    x, y = UNSEEN
    return float(np.mean(optax.softmax_cross_entropy_with_integer_labels(NET.apply(params, x).logits, y)))


@pytest.mark.slow
def test_the_head_is_the_scaled_ridge_of_the_features():
    params, found = closed_form_head(NET, START, (X, Y))
    features = NET.apply(START, X).features
    plain = ridge(features, Y, num_classes=3)
    np.testing.assert_allclose(found.weights, plain.weights, rtol=1e-5)
    ratio = np.asarray(params["head"]["kernel"]) / np.asarray(plain.weights)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    np.testing.assert_allclose(params["head"]["bias"], ratio[0, 0] * np.asarray(plain.bias), rtol=1e-3)
    assert ratio[0, 0] > 1  # targets of +-1 are timid logits
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(params["backbone"]["block_00"]["dense"][name],
                                      START["backbone"]["block_00"]["dense"][name])  # fmt: skip


@pytest.mark.slow
def test_it_is_about_as_likely_as_a_trained_probe():
    params, _ = closed_form_head(NET, START, (X, Y))
    probe = fit(NET, START, cross_entropy(), linear_probe(), (X, Y), optimizer=optax.adam(0.03), steps=400,
                batch_size=120, progress=False)  # fmt: skip
    assert nll(params) < nll(START) - 0.3
    assert nll(params) < nll(probe.last) + 0.03


def test_lp_ft_is_fit_from_there():
    options = {"optimizer": optax.sgd(0.1), "steps": 4, "batch_size": 30, "progress": False, "train": (X, Y)}
    objective = cross_entropy()
    begin, _ = closed_form_head(NET, START, (X, Y))
    expected = fit(NET, begin, objective, **options)
    found = lp_ft(NET, START, objective, **options)
    jax.tree.map(np.testing.assert_array_equal, found.last, expected.last)


def plain(turned, name="kernel", nonlinear=False, width=3):
    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        features = jnp.tanh(x @ params["backbone"]["w"])
        kernel = params["head"][name]
        logits = features @ (kernel.T if turned else kernel) + params["head"]["bias"][None]
        return Output(jnp.tanh(logits) if nonlinear else logits, features)

    shape = (width, 6) if turned else (6, width)
    params = {"backbone": {"w": jnp.eye(6)}, "head": {name: jnp.zeros(shape), "bias": jnp.zeros(width)}}
    return Model(None, apply, name="plain"), params


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("turned", "width"), [(False, 3), (True, 3), (True, 6)])
def test_kernels_of_either_order(turned, width):
    model, params = plain(turned, "weight" if turned else "kernel", width=width)
    params, found = closed_form_head(model, params, (X, Y), strengths=[0.1, 1.0])
    logits = model.apply(params, X).logits
    ratio = np.asarray(logits)[:, :3] / np.asarray(found.predict(jnp.tanh(X)))[:, :3]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)
    assert float(np.mean(np.argmax(logits, -1) == Y)) > 0.7  # absent classes never win


@pytest.mark.slow
def test_other_labels_are_not_scaled():
    model, params = plain(False, width=1)
    changed, found = closed_form_head(model, params, (X, X[:, 0] * 2 + 1))
    np.testing.assert_allclose(changed["head"]["kernel"], found.weights)
    binary, _ = closed_form_head(model, params, (X, (X[:, 0] > 0).astype(np.int32)))
    assert np.mean((np.asarray(model.apply(binary, X).logits)[:, 0] > 0) == (X[:, 0] > 0)) > 0.9
    one_each = closed_form_head(*plain(False), (X[:3], np.arange(3)))
    np.testing.assert_allclose(one_each[0]["head"]["kernel"], one_each[1].weights)


def test_what_has_no_closed_form():
    model, params = plain(False, nonlinear=True)
    with pytest.raises(HeadError, match=r"plain does not compute features @ head/kernel \+ head/bias"):
        closed_form_head(model, params, (X, Y))
    with pytest.raises(HeadError, match=r"kernel \[16, 3\] and a bias \[3\].*selects head/kernel \[16, 3\]. Name"):
        closed_form_head(NET, START, (X, Y), head="head/kernel")


def test_half_precision_heads_keep_their_dtype():
    model, params = plain(False)
    params = params | {"head": jax.tree.map(lambda a: a.astype(jnp.bfloat16), params["head"])}

    def apply(params, x, **rest):
        return model.apply(jax.tree.map(lambda a: a.astype(jnp.float32), params), x, **rest)

    changed, _ = closed_form_head(model._replace(apply=apply), params, (X, Y))
    assert changed["head"]["kernel"].dtype == jnp.bfloat16
