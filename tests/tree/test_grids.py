"""Position grids against numbers from torch and scipy (golden/make_tree_resize.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.tree import ResizeError, position_grid

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "tree_resize.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN})
METHODS = ["timm", "huggingface", "big_vision", "bilinear"]


def pair(case, method):
    return GOLDEN[f"{case}/source"], GOLDEN[f"{case}/{method}"]


def table(cells, prefix=0, value=0.0):
    rows = cells.reshape(-1, cells.shape[-1])
    return np.concatenate([np.full((prefix, rows.shape[1]), value, rows.dtype), rows])[None]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference_implementation(case, method):
    source, expected = pair(case, method)
    rule = position_grid(source.shape[:2], expected.shape[:2], prefix_tokens=0, method=method)
    out = rule("pos", table(source), np.zeros_like(table(expected)))
    np.testing.assert_allclose(out, table(expected), atol=3e-6)


def test_the_methods_are_not_the_same():
    outs = [pair("4x4_to_6x6", method)[1] for method in METHODS]
    assert min(np.abs(a - b).max() for i, a in enumerate(outs) for b in outs[:i]) > 0.01


def test_live_against_torch():
    torch = pytest.importorskip("torch")
    cells = np.random.default_rng(1).normal(size=(14, 14, 3)).astype(np.float32)
    image = torch.from_numpy(cells).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(image, size=(16, 12), mode="bicubic", antialias=True)
    rule = position_grid(target_grid=(16, 12), prefix_tokens=0)
    out = rule("pos", table(cells), np.zeros((1, 192, 3), np.float32))
    np.testing.assert_allclose(out, table(expected[0].permute(1, 2, 0).numpy()), atol=3e-6)


@pytest.mark.parametrize("method", METHODS)
def test_prefix_tokens_are_copied_and_squares_inferred(method):
    source, expected = pair("4x4_to_6x6", method)
    fresh = table(np.full((6, 6, 2), 9, np.float32), prefix=2, value=9)
    out = position_grid(prefix_tokens=2, method=method)("pos", table(source, 2, 7.0), fresh)
    np.testing.assert_allclose(out, table(expected, 2, 7.0), atol=3e-6)


@pytest.mark.parametrize(
    ("prefixes", "expected"),
    [((1, 0), []), ((0, 1), [[9, 9]]), ((2, 1), [[7, 7]]), ((1, 3), [[7, 7], [9, 9], [9, 9]])],
)
def test_prefixes_that_differ(prefixes, expected):
    cells = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    fresh = table(np.zeros((2, 2, 2), np.float32), prefixes[1], 9.0)
    out = position_grid(prefix_tokens=prefixes)("pos", table(cells, prefixes[0], 7.0), fresh)
    np.testing.assert_array_equal(out[0, : prefixes[1]], np.reshape(expected, (-1, 2)))
    np.testing.assert_array_equal(out[0, prefixes[1] :], cells.reshape(4, 2))


def test_tables_of_two_and_of_three_axes():
    source, expected = pair("4x4_to_6x6", "timm")
    rule = position_grid(prefix_tokens=0)
    flat = rule("pos", table(source)[0], np.zeros((36, 2), np.float32))
    np.testing.assert_allclose(flat, table(expected)[0], atol=3e-6)
    assert rule("pos", table(source)[0], np.zeros((1, 36, 2), np.float32)).shape == (1, 36, 2)


def test_the_same_grid_is_copied_bit_by_bit():
    source = table(np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32), 1, 0.1)
    np.testing.assert_array_equal(position_grid(prefix_tokens=1)("pos", source, np.zeros_like(source)), source)


def test_the_same_number_of_cells_in_another_grid_is_resized():
    source, expected = np.arange(4.0, dtype=np.float32).reshape(1, 4, 1), [0.0, 3.0, 0.0, 3.0]
    rule = position_grid((1, 4), (2, 2), prefix_tokens=0, method="big_vision")
    np.testing.assert_array_equal(rule("pos", source, np.zeros((1, 4, 1)))[0, :, 0], expected)


def test_abstract_targets_and_half_precision():
    source = jnp.asarray(table(pair("4x4_to_6x6", "timm")[0]), jnp.bfloat16)
    out = position_grid(prefix_tokens=0)("pos", source, jax.ShapeDtypeStruct((1, 36, 2), jnp.bfloat16))
    assert out.dtype == np.float32  # interpolated there; the graft casts


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (16, {"prefix_tokens": 1}, "source has 16 rows, which are not 1 prefix tokens and a grid of 3 x 3"),
        (17, {"prefix_tokens": 0}, "source has 17 rows, which are not 0 prefix"),
        (17, {"prefix_tokens": 1, "target_grid": (2, 4)}, r"target has 10 rows.*2 x 4; give target_grid="),
        (1, {"prefix_tokens": 1}, "source has 1 rows"),
    ],
)
def test_rows_that_do_not_add_up(rows, options, message):
    with pytest.raises(ResizeError, match=message):
        position_grid(**options)("pos", np.zeros((1, rows, 2)), np.zeros((1, 10, 2)))


def test_prefix_tokens_are_never_guessed():
    with pytest.raises(TypeError, match="prefix_tokens"):
        position_grid()


def test_other_tables_are_refused():
    with pytest.raises(ResizeError, match=r"pos: a position table is \[1, N, D\]"):
        position_grid(prefix_tokens=0)("pos", np.zeros((2, 4, 3)), np.zeros((1, 9, 3)))
    with pytest.raises(ResizeError, match="differ in the vectors' length"):
        position_grid(prefix_tokens=0)("pos", np.zeros((1, 4, 3)), np.zeros((1, 9, 2)))
    with pytest.raises(ResizeError, match="method='nearest'; expected one of timm, huggingface"):
        position_grid(prefix_tokens=0, method="nearest")
