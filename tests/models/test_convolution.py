"""Convolutions that are done otherwise on CPU are the same convolutions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models.convolution import convolve

NUMBERS = ("NHWC", "HWIO", "NHWC")


def both(x, kernel, strides, padding, groups):
    """The outputs and gradients of `convolve` and of JAX's own, and how many convolutions XLA is left with."""
    found = []
    for way in (convolve, jax.lax.conv_general_dilated):

        def value(x, kernel, way=way):
            y = way(x, kernel, strides, padding, feature_group_count=groups, dimension_numbers=NUMBERS)
            return jnp.sum(jnp.sin(y)), y

        run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
        found.append((run(x, kernel), str(run.trace(x, kernel).jaxpr).count("conv_general_dilated")))
    return found


SIZES = [(1, 1), (2, 2), (4, 3), (2, 9)]


@pytest.mark.one_in(35)
@pytest.mark.parametrize(("size", "kernel", "stride"), list(itertools.product(SIZES, [3, 4, 5], [1, 2])))
@pytest.mark.parametrize("padding", ["SAME", "VALID", "symmetric"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_outputs_and_gradients_are_those_of_jax(size, kernel, stride, padding, groups):
    if padding == "VALID" and min(size) < kernel:
        pytest.skip("no place for the kernel")
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, *size, 4)), rng.normal(size=(kernel, kernel, 4 // groups, 4))
    pads = ((kernel // 2, kernel // 2),) * 2 if padding == "symmetric" else padding
    (ours, left), (theirs, _) = both(jnp.float32(x), jnp.float32(weights), (stride, stride), pads, groups)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
    small = any(count < kernel for count in ours[0][1].shape[1:3])
    assert (left == 0) == (small if groups == 1 else groups == 4 and kernel == 3)


def test_on_other_devices_and_in_half_precision(monkeypatch):
    x, kernel = jnp.ones((1, 2, 2, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 2), jnp.bfloat16)
    run = lambda: convolve(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)  # noqa: E731
    assert run().dtype == jnp.bfloat16
    assert run().tolist() == jnp.full((1, 2, 2, 2), 12).tolist()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in str(jax.make_jaxpr(run)())
