"""RegMean: Gram matrices against activations taken by hand, for several kinds of model."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.merging import Gram, MergingError, average, grams, regmean
from tljax.models import from_flax, from_nnx, mlp, vit
from tljax.tree import named_leaves
from tljax.types import Batch, Model, Output

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype(np.float32)


def second(x) -> np.ndarray:
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return x.T @ x / len(x)


def test_dense_layers_of_an_mlp() -> None:
    model = mlp(num_classes=3, hidden=(8,))
    params = model.init(jax.random.key(0), X)
    found = grams(model, params, [Batch(X[:8]), Batch(X[8:])])
    kernels = {name for name in named_leaves(params) if name.endswith("kernel")}
    assert found.keys() == kernels
    np.testing.assert_allclose(
        found["head/kernel"].matrix, second(model.apply(params, X).features), rtol=1e-5, atol=1e-6
    )
    first = next(name for name in kernels if name.startswith("backbone"))
    np.testing.assert_allclose(found[first].matrix, second(X), rtol=1e-5, atol=1e-6)


def test_attention_with_several_axes_in_and_out() -> None:
    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", "x", x)
            return nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x).mean(1)

    model = from_flax(Attention())
    x = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    params = model.init(jax.random.key(0), x)
    found = grams(model, params, [Batch(x)])
    inside = "backbone/attention/"
    assert found.keys() == {f"{inside}{part}/kernel" for part in ("query", "key", "value", "out")}
    np.testing.assert_allclose(found[f"{inside}query/kernel"].matrix, second(x), rtol=1e-5, atol=1e-6)
    assert found[f"{inside}out/kernel"].axes == (0, 1)
    assert found[f"{inside}out/kernel"].matrix.shape == (6, 6)


@pytest.mark.slow
def test_a_vision_transformer_and_a_remat_of_it() -> None:
    model = vit("ti", num_classes=2, depth=1, width=12, heads=2, patch=4)
    x = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    params = model.init(jax.random.key(0), x)
    found = grams(model, params, [Batch(x)])
    kernels = {name for name, leaf in named_leaves(params).items() if name.endswith("kernel")}
    assert found.keys() == kernels
    again = grams(model._replace(apply=jax.checkpoint(model.apply)), params, [Batch(x)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, again)


def test_nnx_and_equinox_and_plain_functions() -> None:
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.hidden, self.out = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(nnx.relu(self.hidden(x)))

    model = from_nnx(Small)
    params = model.init(jax.random.key(0), X)
    found = grams(model, params, [Batch(X)])
    np.testing.assert_allclose(
        found["head/kernel"].matrix, second(model.apply(params, X).features), rtol=1e-5, atol=1e-6
    )

    linear = eqx.nn.Linear(6, 3, key=jax.random.key(0))  # its weight is [out, in]
    plain = Model(None, lambda p, x, **_: Output(jax.vmap(p)(x), x))  # type: ignore[arg-type]
    found = grams(plain, linear, [Batch(X)])
    assert found["weight"].axes == (1,)
    np.testing.assert_allclose(found["weight"].matrix, second(X), rtol=1e-5, atol=1e-6)
    merged = regmean([linear, linear], [found, found])
    np.testing.assert_allclose(merged.weight, linear.weight, rtol=1e-5, atol=1e-6)


def test_leaves_with_other_uses_are_left_to_the_average() -> None:
    def apply(params, x, **_):
        h = params["table"][x] @ params["kernel"]
        h, _ = jax.lax.scan(lambda h, _: (jnp.tanh(h @ params["looped"]), None), h, length=2)
        return Output(h @ params["table"].T, h)

    model = Model(None, apply)  # type: ignore[arg-type]
    params = {"table": jnp.ones((5, 3)), "kernel": jnp.eye(3), "looped": jnp.eye(3)}
    assert grams(model, params, [Batch(jnp.array([0, 4]))]).keys() == {"kernel"}


def test_a_kernel_that_is_joined_before_use() -> None:
    kernel = jnp.asarray(RNG.normal(size=(1, 1, 6, 2)), jnp.float32)
    model = Model(None, lambda p, x, **_: Output(x @ p["kernel"].reshape(6, 2).astype(jnp.float32), x))  # type: ignore[arg-type]
    [gram] = grams(model, {"kernel": kernel}, [Batch(X)]).values()
    assert gram.axes == (0, 1, 2)
    np.testing.assert_allclose(gram.matrix, second(X), rtol=1e-5, atol=1e-6)


def test_it_is_the_least_squares_solution_where_weights_of_two_axes_are_solved() -> None:
    """It minimises ``sum_i ||X_i W - X_i W_i||^2``."""
    xs = [RNG.normal(size=(30, 6)) for _ in range(2)]
    models = [{"w": jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)} for _ in range(2)]
    moments = [{"w": Gram(x.T @ x / len(x), (0, 1))} for x in xs]
    merged = regmean(models, moments, scale=1.0, ridge=0.0)["w"].reshape(6, 4)
    stacked = np.concatenate(xs)
    targets = np.concatenate([x @ np.asarray(m["w"], np.float64).reshape(6, 4) for x, m in zip(xs, models)])
    np.testing.assert_allclose(merged, np.linalg.lstsq(stacked, targets)[0], rtol=1e-4, atol=1e-5)


def test_dead_inputs_get_the_average_and_need_the_ridge() -> None:
    models = [
        {"w": jnp.array([[1.0], [1.0]]), "b": jnp.array([0.0])},
        {"w": jnp.array([[3.0], [5.0]]), "b": jnp.array([4.0])},
    ]
    dead = [{"w": Gram(np.diag([1.0, 0.0]), (0,))}] * 2
    merged = regmean(models, dead)
    np.testing.assert_allclose(merged["w"], [[2.0], [3.0]], rtol=1e-5)
    np.testing.assert_allclose(merged["b"], [2.0])
    with pytest.raises(MergingError, match="'w' are singular"):
        regmean(models, dead, ridge=0.0)
    nothing = [{"w": Gram(np.zeros((2, 2)), (0,))}] * 2
    jax.tree.map(np.testing.assert_allclose, regmean(models, nothing), average(models))


def test_what_does_not_fit() -> None:
    models = [{"w": jnp.ones((2, 1))}] * 2
    with pytest.raises(MergingError, match="2 inputs and a Gram matrix"):
        regmean(models, [{"w": Gram(np.eye(3), (0,))}] * 2)
    with pytest.raises(MergingError, match="2 models and 1 sets"):
        regmean(models, [{}])
    model = Model(None, lambda p, x, **_: Output(x @ p["w"], x))  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="there are no batches"):
        grams(model, models[0], [])
