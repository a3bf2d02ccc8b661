"""Fisher information against closed forms, and what its merge does at the edges."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.merging import MergingError, average, fisher, fisher_merge
from tljax.models import from_flax
from tljax.types import Batch, Model, Output

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 4)).astype(np.float32), RNG.integers(0, 3, 10)
LINEAR = Model(None, lambda params, x, **_: Output(x @ params["kernel"], x))  # type: ignore[arg-type]
W = {"kernel": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)}


def batches(size: int = 10) -> list[Batch]:
    return [Batch(X[i : i + size], Y[i : i + size]) for i in range(0, 10, size)]


def softmax() -> np.ndarray:
    logits = X.astype(np.float64) @ np.asarray(W["kernel"], np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("size", [10, 3])
@pytest.mark.parametrize("block", [1, 4])
def test_softmax_regression_has_a_closed_form(size: int, block: int) -> None:
    """``d log p_c / dW_dk = x_d (1[c=k] - p_k)``, so ``F_dk = E x_d^2 p_k (1 - p_k)``."""
    p = softmax()
    expected = np.einsum("nd,nk->dk", np.square(X, dtype=np.float64), p * (1 - p)) / 10
    np.testing.assert_allclose(fisher(LINEAR, W, batches(size), block=block)["kernel"], expected, rtol=1e-5)


def test_empirical_reads_labels_and_weights_count() -> None:
    residual = np.eye(3)[Y] - softmax()
    expected = np.einsum("nd,nk->dk", np.square(X, dtype=np.float64), residual**2) / 10
    np.testing.assert_allclose(fisher(LINEAR, W, batches(), empirical=True)["kernel"], expected, rtol=1e-5)
    padded = [Batch(np.pad(X, ((0, 3), (0, 0))), np.pad(Y, (0, 3)), np.r_[np.ones(10), np.zeros(3)])]
    np.testing.assert_allclose(fisher(LINEAR, W, padded, empirical=True)["kernel"], expected, rtol=1e-5)
    with pytest.raises(MergingError, match="y=None"):
        fisher(LINEAR, W, [Batch(X)], empirical=True)
    with pytest.raises(MergingError, match="the batches have none"):
        fisher(LINEAR, W, [])


def test_a_model_with_batchnorm_infers_so_examples_are_alone() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))

    model = from_flax(Net())
    params = model.init(jax.random.key(0), X)
    whole, single = (fisher(model, params, batches(size)) for size in (10, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), whole, single)
    assert whole["backbone"]["BatchNorm_0"]["batch_stats"] == {"mean": None, "var": None}
    merged = fisher_merge([params, params], [whole, whole])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, params)


def test_where_no_information_is() -> None:
    a, b = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([3.0, 3.0])}
    none = {"w": jnp.zeros(2)}
    np.testing.assert_allclose(fisher_merge([a, b], [none, none])["w"], a["w"])
    np.testing.assert_allclose(fisher_merge([a, b], [none, none], favor_first=False)["w"], average([a, b])["w"])
    np.testing.assert_allclose(fisher_merge([a, b], [none, none], [1.0, 3.0], favor_first=False)["w"], [2.5, 2.5])


def test_normalized_over_all_parameters() -> None:
    a, b = ({"v": jnp.array([x]), "w": jnp.array([x])} for x in (0.0, 1.0))
    fa, fb = {"v": jnp.array([30.0]), "w": jnp.array([40.0])}, {"v": jnp.array([0.8]), "w": jnp.array([0.6])}
    merged = fisher_merge([a, b], [fa, fb])
    assert float(merged["v"][0]) == pytest.approx(0.8 / 1.4, abs=1e-6)
    assert float(merged["w"][0]) == pytest.approx(0.6 / 1.4, abs=1e-6)


def test_what_does_not_fit() -> None:
    with pytest.raises(MergingError, match="2 models, 1 Fisher informations"):
        fisher_merge([W, W], [W])
    with pytest.raises(MergingError, match=r"'kernel' is.*no such leaf"):
        fisher_merge([W, W], [W, {"other": jnp.ones(2)}])
