"""Gradient reversal and the schedule of its strength."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import golden

from tljax.objectives import ScheduleError, reversed_gradient, stateless, warm_up


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("coefficient", [0.0, 0.5, 2.0])
def test_identity_forward_and_minus_the_coefficient_backward(dtype, coefficient):
    x = jnp.array([1.5, -2.0], dtype)
    y, back = jax.vjp(lambda a: reversed_gradient(a, coefficient), x)
    np.testing.assert_array_equal(y, x)
    (slope,) = back(jnp.array([1.0, 3.0], dtype))
    assert slope.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(slope, "float32"), [-coefficient, -3 * coefficient])


def test_under_jit_and_vmap_with_a_traced_coefficient():
    def loss(x, c):
        return jnp.sum(jnp.square(reversed_gradient(x, c)))

    xs, cs = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.5, 2.0])
    expected = -cs[:, None] * 2 * xs
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.jit(loss)))(xs, cs), expected)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(loss)))(xs, cs), expected)
    assert float(jax.grad(loss, argnums=1)(xs, jnp.float32(0.5))) == 0


def test_gradient_of_a_gradient():
    slope = jax.grad(lambda x: reversed_gradient(x, 0.5) ** 3)
    assert float(slope(2.0)) == -0.5 * 12
    assert float(jax.grad(slope)(2.0)) == -0.5 * 6 * 2  # the true derivative of -0.5 * 3 x^2


@pytest.mark.parametrize("high", [1, 0.1])
@pytest.mark.parametrize("step", [0, 100, 1000, 3000, 10000])
def test_warm_up_golden(high, step):
    expected = golden(f"grl_coeff_hi{high}_it{step}")
    assert float(warm_up(high=high)(jnp.int32(step))) == pytest.approx(expected, rel=1e-6)
    with jax.enable_x64(True):
        assert float(jax.jit(warm_up(high=high))(step)) == pytest.approx(expected, abs=1e-12)


def test_warm_up_from_a_floor_and_over_a_run():
    rise = warm_up(high=2, low=1, alpha=10, steps=50)
    assert float(rise(0)) == 1
    assert float(rise(25)) == pytest.approx(2 * 1 / (1 + np.exp(-5)) - 1 + 1, rel=1e-6)
    assert float(rise(10**6)) == 2


def test_warm_up_is_named_in_a_sum():
    term = warm_up(steps=100) * stateless(lambda s: (jnp.float32(4), {}), "mcc()")
    assert str(term) == "warm_up(steps=100) * mcc()"


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"alpha": -1}])
def test_numbers_that_make_no_rise(wrong):
    with pytest.raises(ScheduleError, match=r"warm_up needs steps > 0 and alpha > 0, found"):
        warm_up(**wrong)
