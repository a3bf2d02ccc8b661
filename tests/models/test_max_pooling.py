"""Max-pooling with a derivative of its own is Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tljax as tl
from tljax.models import max_pool

CASES = [
    ((8, 8), (2, 2), (2, 2), "VALID"),
    ((7, 9), (2, 2), (2, 2), "VALID"),  # a row and a column that no window meets
    ((7, 9), (2, 2), (2, 2), "SAME"),
    ((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((9, 8), (3, 2), (1, 3), ((0, 2), (1, 0))),
    ((6, 5), (3, 3), None, "SAME"),
    ((9, 9), (2, 2), (4, 3), "VALID"),  # strides wider than the window
    ((4, 4), (4, 4), (4, 4), "VALID"),
]


def maps(size, kind=jnp.float32, channels=3):
    """Coarse numbers, of which many windows hold the same one twice."""
    return jnp.asarray(np.random.default_rng(0).integers(-2, 3, (2, *size, channels)), kind)


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "window", "strides", "padding"), CASES)
def test_outputs_and_gradients_are_those_of_flax(size, window, strides, padding, kind):
    x = maps(size, kind)
    found = []
    for pool in (max_pool, nn.max_pool):
        run = jax.jit(lambda x, pool=pool: jax.vjp(lambda x: pool(x, window, strides, padding), x)[1])
        y = pool(x, window, strides, padding)
        weights = jnp.asarray(np.random.default_rng(1).integers(1, 9, y.shape), kind)
        found.append((y, run(x)(weights)[0]))
    for ours, theirs in zip(*found):
        assert ours.dtype == theirs.dtype == kind
        np.testing.assert_array_equal(np.float32(ours), np.float32(theirs))


def test_the_gradient_is_torchs_and_goes_to_the_first_of_equals():
    torch = pytest.importorskip("torch")
    x = maps((9, 8))
    given = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2), requires_grad=True)
    torch.nn.functional.max_pool2d(given, 3, 2, 1).square().sum().backward()
    ours = jax.grad(lambda x: jnp.square(max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))).sum())(x)
    np.testing.assert_array_equal(np.asarray(ours).transpose(0, 3, 1, 2), given.grad.numpy())


def test_it_is_differentiated_forwards_and_twice():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
    loss = lambda pool: lambda x: jnp.sum(jnp.sin(pool(x, (3, 3), (2, 2), "SAME")))  # noqa: E731
    for ours, theirs in [
        [jax.jvp(loss(pool), (x,), (x + 1,))[1] for pool in (max_pool, nn.max_pool)],
        [jax.grad(lambda x, p=pool: jnp.sum(jax.grad(loss(p))(x) ** 2))(x) for pool in (max_pool, nn.max_pool)],
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_are_no_maps_of_floats_goes_to_flax():
    line = jnp.arange(12.0).reshape(2, 6, 1)
    np.testing.assert_array_equal(max_pool(line, (2,), (2,)), nn.max_pool(line, (2,), (2,)))
    whole = maps((4, 4), jnp.int32)
    np.testing.assert_array_equal(max_pool(whole, (2, 2), (2, 2)), nn.max_pool(whole, (2, 2), (2, 2)))


@pytest.mark.parametrize("model", [tl.models.lenet(), tl.models.imagenet_resnet(18, 10)], ids=lambda m: m.name)
def test_models_train_without_xlas_gradient_of_a_maximum_on_cpu(model):
    x = jnp.ones((2, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    gradient = jax.grad(lambda p: model.apply(p, x, train=True, key=jax.random.key(0)).logits.sum())
    found = str(jax.make_jaxpr(gradient)(params))
    assert "select_and" not in found
    assert "select_and" in str(jax.make_jaxpr(jax.grad(lambda x: nn.max_pool(x, (2, 2)).sum()))(x))
