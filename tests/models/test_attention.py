"""Attention against NumPy and `jax.nn.dot_product_attention`, and the choice of its kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import attention, bert, vit
from tljax.models.attention import attend


def _qkv(dtype="float32"):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(2, 6, 3, 8)), dtype) for _ in range(3))


MASK = jnp.array([[True] * 4 + [False] * 2, [False] * 6])


def _by_hand(q, k, v, mask=None):
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(np.asarray(mask)[:, None, None, :], scores, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mask", [None, MASK])
def test_it_is_the_formula_and_what_jax_computes(mask):
    q, k, v = _qkv()
    found = attend(q, k, v, mask=mask)
    np.testing.assert_allclose(found, _by_hand(q, k, v, mask), atol=1e-6)
    full = None if mask is None else jnp.broadcast_to(mask[:, None, None, :], (2, 1, 6, 6))
    np.testing.assert_allclose(found, jax.nn.dot_product_attention(q, k, v, mask=full), atol=1e-6)


@pytest.mark.slow
def test_in_half_precision_the_softmax_is_float32():
    q, k, v = _qkv("bfloat16")
    found, slopes = jax.value_and_grad(lambda q: jnp.sum(attend(q, k, v, mask=MASK).astype(jnp.float32)))(q)
    assert found.dtype == jnp.float32
    assert slopes.dtype == jnp.bfloat16
    np.testing.assert_allclose(attend(q, k, v).astype(jnp.float32), _by_hand(q, k, v), atol=0.03)


def test_dropout_works_on_the_weights():
    q, k, v = _qkv()
    np.testing.assert_allclose(attend(q, k, v, drop=lambda weights: 2 * weights), 2 * attend(q, k, v), atol=1e-6)


def test_the_kernel_goes_by_device_type_and_shape(monkeypatch):
    asked = []

    def noted(q, k, v, *, mask, implementation):
        asked.append((implementation, None if mask is None else mask.shape))
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", noted)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    half, wide = _qkv("bfloat16"), _qkv()
    for capability, arrays, mask in ((9.0, half, None), (9.0, half, MASK), (9.0, wide, MASK), (7.5, half, None)):
        monkeypatch.setattr(attention, "_capability", lambda capability=capability: capability)
        attend(*arrays, mask=mask)
    odd = tuple(a[:, :5] for a in half)
    monkeypatch.setattr(attention, "_capability", lambda: 9.0)
    attend(*odd)
    attend(*odd, mask=MASK[:, :5])
    full = (2, 1, 6, 6)
    assert asked == [
        ("cudnn", None), ("cudnn", full), ("xla", full), ("xla", None), ("cudnn", None), ("xla", (2, 1, 5, 5)),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("build", [lambda: vit("ti", 3, width=16, depth=2, heads=2), lambda: bert("tiny", width=16)])
def test_models_give_the_same_through_the_kernel_of_accelerators(build, monkeypatch):
    model, rng = build(), np.random.default_rng(1)
    if model.name.startswith("vit"):
        x = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
    else:
        ids = jnp.asarray(rng.integers(5, 50, (2, 6)), jnp.int32)
        x = {"ids": ids, "mask": MASK.at[1, 0].set(True).astype(jnp.int32)}
    params = model.init(jax.random.key(0), x)
    here = model.apply(params, x).logits
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(model.apply(params, x).logits, here, atol=1e-6)
