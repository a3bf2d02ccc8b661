"""The mean over real examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.objectives import Scene, cross_entropy, l2_sp, weighted_mean
from tljax.objectives.describe import describe
from tljax.types import Batch, Output


def test_agrees_with_numpy():
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=7).astype("float32"), rng.uniform(size=7).astype("float32")
    assert float(weighted_mean(values)) == pytest.approx(values.mean(), rel=1e-6)
    assert float(weighted_mean(values, weight)) == pytest.approx(np.average(values, weights=weight), rel=1e-6)


@pytest.mark.parametrize("junk", [0.0, 1e30, np.nan, np.inf, -np.inf])
def test_padding_never_counts(junk):
    values, weight = jnp.array([1.0, 2.0, junk]), jnp.array([1, 1, 0])
    mean, gradient = jax.value_and_grad(weighted_mean)(values, weight)
    assert float(mean) == 1.5
    np.testing.assert_array_equal(gradient, [0.5, 0.5, 0.0])


def test_all_padding_is_zero_and_moves_nothing():
    mean, gradient = jax.value_and_grad(weighted_mean)(jnp.array([jnp.nan, 3.0]), jnp.zeros(2))
    assert float(mean) == 0.0
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


def test_a_real_nan_shows():
    assert np.isnan(weighted_mean(jnp.array([jnp.nan, 3.0]), jnp.ones(2)))


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "bfloat16", "float32"])
def test_weights_of_any_type(dtype):
    assert float(weighted_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([1, 1, 0], dtype))) == 1.5


def test_descriptions_of_arrays_and_trees():
    def maker(start, *, weights=None, where="a", n=1): ...

    assert describe(maker, "start", weights=None, where="a", n=1) == "maker(start)"
    assert describe(maker, weights=np.arange(9) / 4, n=2) == "maker(weights=[0, 0.25, 0.5, 0.75, ...], n=2)"
    assert describe(maker, weights=(1, 2), where="b") == "maker(weights=[1, 2], where='b')"


@pytest.mark.one_in(8)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("labels", ["int64", "int32", "float64", "float32"])
def test_terms_under_x64(dtype, labels):
    """With 64-bit types on, weak numbers and results of argmax are 64 bits wide; data, weights and parameters may be
    of either width."""
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), dtype)
        params = {"backbone": {"w": jnp.ones(3, dtype)}, "head": {"w": jnp.full(2, 2, dtype)}}
        hard = np.arange(6) % 3
        y = jnp.asarray(hard if "int" in labels else np.eye(3)[hard], labels)
        anchors = {"backbone": {"w": np.zeros(3, "float32")}}
        total = cross_entropy(class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1) + 0.5 * l2_sp(anchors)
        for weight in (None, jnp.ones(6, "float32"), jnp.ones(6, "float64")):
            batches = {"train": Batch(jnp.zeros(6), y, weight)}

            def loss(params, batches=batches):
                outputs = {"train": Output(logits * params["head"]["w"][0], logits)}
                scene = Scene(outputs, batches, params, None, jnp.int32(0), jax.random.key(0))
                value, _, metrics = total.apply(total.init(scene.key, scene), scene)
                return value, metrics

            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            assert value.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
            np.testing.assert_allclose(metrics["l2_sp"], (3 + 8) / 2, rtol=1e-6)
            np.testing.assert_allclose(value, metrics["cross_entropy"] + 5.5 / 2, rtol=1e-6)
            np.testing.assert_allclose(np.asarray(gradient["backbone"]["w"], float), 0.5, rtol=1e-6)
