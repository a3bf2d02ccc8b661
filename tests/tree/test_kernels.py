"""Input channels and kernel sizes against their definitions in terms of the convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.tree import ResizeError, input_channels, kernel_size

RNG = np.random.default_rng(0)
RGB = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
GREY = RNG.normal(size=(3, 3, 1, 4)).astype(np.float32)


def convolve(image, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(image, jnp.asarray(kernel), (1, 1), "SAME", dimension_numbers=layout)


def resized(rule, source, *shape):
    return rule("conv/kernel", source, np.zeros(shape, np.float32))


def test_rgb_to_grey_has_the_response_of_the_repeated_image():
    image = RNG.normal(size=(1, 5, 5, 1)).astype(np.float32)
    grey = resized(input_channels(), RGB, 3, 3, 1, 4)
    np.testing.assert_allclose(convolve(image, grey), convolve(image.repeat(3, -1), RGB), atol=1e-5)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_grey_to_many_keeps_the_response_to_grey(channels):
    image = RNG.normal(size=(1, 5, 5, 1)).astype(np.float32)
    kernel = resized(input_channels(), GREY, 3, 3, channels, 4)
    np.testing.assert_allclose(convolve(image.repeat(channels, -1), kernel), convolve(image, GREY), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7, 13])
def test_rgb_to_n_is_the_published_recipe(channels):
    """In torch's layout [O, I, h, w]: sum for one channel, else tile, cut, and scale by 3 / n."""
    torch_kernel = RGB.transpose(3, 2, 0, 1)
    if channels == 1:
        expected = torch_kernel.sum(1, keepdims=True)
    else:
        expected = np.tile(torch_kernel, (1, -(-channels // 3), 1, 1))[:, :channels] * (3 / channels)
    out = resized(input_channels(), RGB, 3, 3, channels, 4)
    np.testing.assert_allclose(out, expected.transpose(2, 3, 1, 0), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_patch_embedding_is_the_same_convolution_written_as_a_matrix(channels):
    matrix = resized(input_channels(3, channels), RGB.reshape(27, 4), 9 * channels, 4)
    np.testing.assert_array_equal(matrix.reshape(3, 3, channels, 4), resized(input_channels(), RGB, 3, 3, channels, 4))


def test_half_precision_is_summed_in_float32():
    kernel = np.array([256.0, 1.0, 1.0]).reshape(1, 1, 3, 1)
    out = resized(input_channels(), jnp.asarray(kernel, jnp.bfloat16), 1, 1, 1, 1)
    assert out.dtype == np.float32
    assert out.item() == 258.0  # bfloat16 alone would lose both ones


def test_input_channels_refuses_to_guess():
    with pytest.raises(ResizeError, match=r"write input_channels\(source_channels, target_channels\)"):
        resized(input_channels(), RGB.reshape(27, 4), 9, 4)
    with pytest.raises(ResizeError, match="does not divide into 5 channels"):
        resized(input_channels(5, 1), RGB.reshape(27, 4), 9, 4)


@pytest.mark.parametrize("size", [5, 7])
def test_a_kernel_padded_about_its_centre_convolves_the_same(size):
    image = RNG.normal(size=(1, 6, 6, 3)).astype(np.float32)
    kernel = resized(kernel_size(), RGB, size, size, 3, 4)
    np.testing.assert_allclose(convolve(image, kernel), convolve(image, RGB), atol=1e-5)
    np.testing.assert_array_equal(resized(kernel_size(), kernel, 3, 3, 3, 4), RGB)


def test_centre_crop():
    kernel = np.arange(49.0, dtype=np.float32).reshape(7, 7, 1, 1)
    np.testing.assert_array_equal(resized(kernel_size(), kernel, 3, 3, 1, 1), kernel[2:5, 2:5])
    np.testing.assert_array_equal(resized(kernel_size(), kernel, 7, 1, 1, 1), kernel[:, 3:4])
    np.testing.assert_array_equal(resized(kernel_size(), kernel, 4, 3, 1, 1), kernel[1:5, 2:5])
    line = np.arange(5.0, dtype=np.float32).reshape(5, 1, 1)
    np.testing.assert_array_equal(resized(kernel_size(), line, 3, 1, 1)[:, 0, 0], [1, 2, 3])


@pytest.mark.parametrize("size", [3, 10])
def test_bilinear_keeps_the_response_to_a_constant_image(size):
    kernel = np.ones((5, 5, 2, 1), np.float32)
    out = resized(kernel_size(method="bilinear"), kernel, size, size, 2, 1)
    np.testing.assert_allclose(out.sum(), kernel.sum(), rtol=1e-5)


def test_kernel_size_refuses():
    with pytest.raises(ResizeError, match="no convolution kernels"):
        resized(kernel_size(), np.zeros((3, 4)), 5, 4)
    with pytest.raises(ResizeError, match="'centre' or 'bilinear'"):
        kernel_size(method="cubic")
