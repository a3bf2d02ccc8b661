"""LeNet: sizes, shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, lenet
from tljax.models.lenet import _grid_mean
from tljax.tree import count, leaf_names, select

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1), (2, 16, 16, 3), (2, 28, 28, 1), (2, 9, 32, 5)])
@pytest.mark.parametrize("grid", [None, 4])
def test_any_size_and_channels(shape, grid):
    model = lenet(5, grid=grid)
    params = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    out = jax.eval_shape(model.apply, params, jnp.zeros(shape))
    assert out.logits.shape == (2, 5)
    assert out.features.shape == (2, 200)
    cells = 16 if grid else (shape[1] // 4) * (shape[2] // 4)
    channels = shape[3] if len(shape) == 4 else 1
    expected = 9 * channels * 32 + 32 + 9 * 32 * 64 + 64 + cells * 64 * 200 + 200 + 200 * 5 + 5
    assert count(params) == expected
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert grouped == leaf_names(params)


def test_a_grid_makes_weights_fit_any_size():
    flat, grid = lenet(3), lenet(3, grid=7)
    x = jax.random.normal(KEY, (2, 28, 28, 1))
    params = flat.init(KEY, x)
    np.testing.assert_allclose(grid.apply(params, x).logits, flat.apply(params, x).logits, rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(grid.apply, params, jnp.zeros((2, 16, 16))).logits.shape == (2, 3)


@pytest.mark.parametrize(("height", "width", "size"), [(7, 7, 7), (8, 6, 3), (7, 5, 4), (2, 2, 4)])
def test_grid_mean_is_torchs_adaptive_pooling(height, width, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), size)
    np.testing.assert_allclose(_grid_mean(jnp.asarray(x), size), expected.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_errors_name_the_thing():
    model = lenet(3)
    with pytest.raises(ModelError, match=r"lenet takes images \[B, H, W, C\].*found the shape \(2, 64\)"):
        model.init(KEY, jnp.zeros((2, 64)))
    with pytest.raises(ModelError, match=r"sides of 4 pixels or more; found the shape \(2, 3, 8, 1\)"):
        model.init(KEY, jnp.zeros((2, 3, 8)))
    assert model.init(KEY, jnp.zeros((2, 4, 7)))["backbone"]["dense"]["kernel"].shape == (64, 200)
