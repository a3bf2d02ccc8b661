"""Every kind makes of a weight what peft makes of it, in torch's order of axes and in JAX's."""

import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.peft import DoRA, Layout, LoRA, Scale, VeRA, dora, ia3, lora, merge, olora, pissa, vera

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))

import make_peft_kinds as made  # noqa: E402
from made_weights import made_weight, uniform  # noqa: E402

SCALE = {"scale": jnp.float32(made.ALPHA / made.RANK)}
RSLORA = {"scale": jnp.float32(made.ALPHA / made.RANK**0.5)}
LOW_RANK = [(kind, layer) for kind, layer in made.CASES if kind in ("lora", "rslora", "dora", "pissa", "olora")]


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(made.PATH))


def weight_of(layer):
    shape = {"linear": (10, 6), "conv1d": (6, 4, 3), "conv2d": (6, 4, 3, 3), "embedding": (9, 5)}[layer]
    return jnp.asarray(made_weight(f"{layer}.weight", shape))


def low_rank(kind, layer, golden, order):
    """The adapter of a case whose weight has its axes in torch's ("torch") or JAX's ("jax") order."""
    a, b = (golden[f"{kind}/{layer}/{name}"] for name in "ab")
    constants = dict(RSLORA if kind == "rslora" else SCALE)
    if kind in ("pissa", "olora"):
        constants |= {f"{name}0": jnp.asarray(golden[f"{kind}/{layer}/{name}0"].T) for name in "ab"}
    if layer == "embedding":
        layout = Layout("embedding")
    else:
        layout = Layout("conv" if "conv" in layer else "dense", ins=a.ndim - 1, transposed=order == "torch")
    a, b = jnp.moveaxis(jnp.asarray(a), 0, -1), jnp.asarray(b).reshape(b.shape[:2]).T
    if order == "jax" and layer != "embedding":
        a = jnp.moveaxis(a, 0, -2)
    if kind != "dora":
        return LoRA(a, b, constants, layout)
    return DoRA(a, b, jnp.asarray(golden[f"{kind}/{layer}/magnitude"].ravel()), constants, layout)


def ordered(weight, order, layer):
    """A torch weight in the order of JAX: `[o, i, h, w]` as `[h, w, i, o]`."""
    return weight if order == "torch" or layer == "embedding" else jnp.moveaxis(weight, (0, 1), (-1, -2))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("order", ["torch", "jax"])
@pytest.mark.parametrize(("kind", "layer"), LOW_RANK)
def test_merge_and_factors_as_peft(kind, layer, order, golden):
    adapter = low_rank(kind, layer, golden, order)
    weight = ordered(weight_of(layer), order, layer)
    wanted = ordered(jnp.asarray(golden[f"{kind}/{layer}/merged"]), order, layer)
    np.testing.assert_allclose(adapter.merge(weight, {}), wanted, rtol=0, atol=2e-6)
    np.testing.assert_allclose(adapter.factor(weight, {}).dense(), wanted, rtol=0, atol=2e-6)


def test_vera_as_peft(golden):
    found = {name: jnp.asarray(golden[f"vera/linear/{name}"]) for name in "dbAB"}
    shared = {"shared/constants/vera_a": found["A"].T, "shared/constants/vera_b": found["B"].T}
    adapter = VeRA(found["d"], found["b"], Layout(transposed=True))
    np.testing.assert_allclose(
        adapter.merge(weight_of("linear"), shared), golden["vera/linear/merged"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("layer", ["linear", "conv2d"])
@pytest.mark.parametrize("kind", ["ia3", "ia3 feedforward"])
def test_ia3_as_peft(kind, layer, golden):
    weight = weight_of(layer)
    params = {"weight": weight, "bias": jnp.asarray(made_weight(f"{layer}.bias", weight.shape[:1]))}
    feedforward = kind != "ia3"
    adapters = ia3(params, () if feedforward else "weight", "weight" if feedforward else ())
    value = jnp.asarray(golden[f"{kind}/{layer}/value"])[0 if layer == "conv2d" or feedforward else slice(None)]
    adapters = jax.tree.map(lambda one: value.reshape(one.shape), adapters)
    merged = merge(params, adapters)
    np.testing.assert_allclose(merged["weight"], golden[f"{kind}/{layer}/merged"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(merged["bias"], golden[f"{kind}/{layer}/merged_bias"], rtol=0, atol=1e-6)


def test_one_set_of_factors_for_a_kernel_and_its_bias():
    params = {"key": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "mlp": {"kernel": jnp.ones((2, 2))}}
    adapters = ia3(params, "{key,mlp}/kernel")
    assert sorted(adapters) == ["key/bias", "key/kernel", "mlp/kernel", "shared/ia3/key"]
    assert isinstance(adapters["mlp/kernel"], Scale)
    assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == 4


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", ["merge", "factor"])
def test_gradients_of_dora_as_in_torch(way, golden):
    """The norm counts as a constant: were it not, the gradients would differ in the first digit."""
    adapter, weight = low_rank("dora", "linear", golden, "torch"), weight_of("linear")
    x, c, bias = uniform("inputs", (7, 6)), uniform("weights", (7, 10)), made_weight("linear.bias", (10,))

    def loss(adapter):
        effective = adapter.merge(weight, {}) if way == "merge" else adapter.factor(weight, {}).dense()
        return jnp.sum((x @ effective.T + bias[None]) * c)

    grads = jax.grad(loss)(adapter)
    np.testing.assert_allclose(grads.a.T, golden["dora/linear/grad_a"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(grads.b.T, golden["dora/linear/grad_b"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(grads.magnitude, golden["dora/linear/grad_magnitude"], rtol=0, atol=5e-6)


@pytest.mark.parametrize(("method", "kind"), [(pissa, "pissa"), (olora, "olora")])
def test_decompositions_start_where_peft_does(method, kind, golden):
    params = {"layer": {"weight": weight_of("linear")}}
    adapter = method(params, "**", rank=made.RANK, alpha=made.ALPHA)["layer/weight"]
    wanted = golden[f"{kind}/linear/b0"] @ golden[f"{kind}/linear/a0"]
    np.testing.assert_allclose((adapter.a @ adapter.b).T, wanted, rtol=0, atol=1e-6)
    if kind == "olora":  # the scale is not in the factors; signs are those of the decomposition
        np.testing.assert_allclose(jnp.abs(adapter.b.T), np.abs(golden["olora/linear/b0"]), rtol=0, atol=1e-6)


def large():
    names = {"linear/kernel": (400, 300), "conv/kernel": (3, 3, 64, 80), "table/embedding": (90, 500)}
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in names.items()}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_starts_are_drawn_as_peft_draws(init, golden):
    adapters = lora(large(), "**", key=jax.random.key(0), rank=40, init=init)
    for layer, name in (("linear", "kernel"), ("conv", "kernel"), ("embedding", "embedding")):
        adapter = adapters[f"{'table' if layer == 'embedding' else layer}/{name}"]
        drawn, zero = (adapter.b, adapter.a) if layer == "embedding" else (adapter.a, adapter.b)
        _same_distribution(drawn, golden[f"start/{init}/{layer}"], bounded=init == "kaiming" and layer != "embedding")
        assert not jnp.any(zero)


@pytest.mark.slow
def test_projections_of_vera_are_drawn_as_peft_draws(golden):
    adapters = vera({"linear/kernel": large()["linear/kernel"]}, "**", key=jax.random.key(0))
    _same_distribution(adapters["shared/constants/vera_a"], golden["start/vera/a"], bounded=True)
    _same_distribution(adapters["shared/constants/vera_b"], golden["start/vera/b"], bounded=True)
    adapter = adapters["linear/kernel"]
    assert (float(adapter.d.min()), float(adapter.d.max()), float(jnp.abs(adapter.b).max())) == (
        pytest.approx(0.1), pytest.approx(0.1), 0,
    )  # fmt: skip


def _same_distribution(ours, wanted, bounded):
    low, high, std = wanted
    assert float(jnp.std(ours)) == pytest.approx(std, rel=0.03)
    assert float(jnp.mean(ours)) == pytest.approx(0, abs=0.05 * std)
    if bounded:
        assert float(ours.min()) == pytest.approx(low, rel=0.01)
        assert float(ours.max()) == pytest.approx(high, rel=0.01)


def test_magnitudes_start_as_norms():
    weight = weight_of("conv2d")
    adapter = dora({"conv": {"weight": weight}}, "**", key=jax.random.key(0), rank=2)["conv/weight"]
    np.testing.assert_allclose(adapter.magnitude, np.linalg.norm(weight.reshape(6, -1), axis=1), rtol=1e-6)


def test_half_precision_is_merged_in_float32(golden):
    """We round once, to the nearest number to the exact sum; peft's safe_merge rounds the update, then the sum."""
    weight = weight_of("linear").astype(jnp.bfloat16)
    a, b = golden["bf16/linear/a"].astype(np.float64), golden["bf16/linear/b"].astype(np.float64)
    exact = np.asarray(weight, np.float64) + made.ALPHA / made.RANK * (b @ a)
    adapter = LoRA(jnp.asarray(a.T, jnp.float32), jnp.asarray(b.T, jnp.float32), SCALE, Layout(transposed=True))
    ours = adapter.merge(weight, {})
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, jnp.asarray(exact.astype(np.float32)).astype(jnp.bfloat16))
    theirs = golden["bf16/linear/merged"]
    assert np.abs(np.asarray(ours, np.float64) - exact).sum() < np.abs(theirs - exact).sum()


def test_the_file_is_what_peft_gives(golden):
    if not (importlib.util.find_spec("peft") and importlib.util.find_spec("torch")):
        pytest.skip("peft and torch are not installed")
    again = made.results()
    assert set(again) == set(golden)
    for name, value in again.items():
        if not name.startswith("start/"):
            np.testing.assert_allclose(value, golden[name], rtol=1e-5, atol=1e-5, err_msg=name)
