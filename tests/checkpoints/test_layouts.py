"""Layouts: hand-made examples, torch's own conventions, and there-and-back to the bit."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.checkpoints.layouts import (
    CONV,
    DENSE,
    SAME,
    LayoutError,
    expanded,
    flattened,
    joined,
    squeezed,
    transposed,
)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


DTYPES = st.sampled_from([np.float32, np.float16, np.int64, np.float64])
LAYOUTS = [
    (SAME, (3, 4)),
    (DENSE, (3, 4)),
    (CONV, (8, 3, 2, 5)),
    (CONV, (6, 1, 3, 3)),
    (transposed(1, 2, 0), (2, 3, 4)),
    (squeezed(0, 1), (1, 1, 5)),
    (expanded(0, 1), (5,)),
    (joined(3), (12,)),
    (joined(3, inner=DENSE), (12, 5)),
    (joined(2, axis=1), (4, 6)),
    (flattened(4), (5, 36)),
]


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS, ids=lambda v: getattr(v, "name", None))
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_there_and_back_is_the_same_to_the_bit(layout, shape, data):
    dtype = data.draw(DTYPES)
    bits = data.draw(hnp.arrays(np.uint8, (int(np.prod(shape)) * np.dtype(dtype).itemsize,)))
    theirs = bits.view(dtype).reshape(shape)  # any bits: NaN payloads and negative zeros too
    ours = layout.load([theirs])
    assert same_bits(np.ascontiguousarray(layout.save(ours)[0]), theirs)
    again = layout.load(layout.save(ours))
    assert all(same_bits(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in zip(again, ours))


def test_fused_projections_come_apart_in_order():
    weight = np.arange(6 * 2).reshape(6, 2)
    query, key, value = joined(3, inner=DENSE).load([weight])
    np.testing.assert_array_equal(query, [[0, 2], [1, 3]])
    np.testing.assert_array_equal(key, [[4, 6], [5, 7]])
    np.testing.assert_array_equal(value, [[8, 10], [9, 11]])


def test_kernels_compute_what_torchs_weights_do():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 5)), rng.normal(size=(3, 5))
    expected = torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(weight)).numpy()
    np.testing.assert_allclose(x @ DENSE.load([weight])[0], expected, atol=1e-12)
    maps, weight = rng.normal(size=(2, 4, 3, 3)), rng.normal(size=(5, 4 * 9))
    expected = torch.nn.functional.linear(torch.from_numpy(maps).flatten(1), torch.from_numpy(weight)).numpy()
    flat = maps.transpose(0, 2, 3, 1).reshape(2, -1)  # ours are channels last
    np.testing.assert_allclose(flat @ flattened(4).load([weight])[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        (DENSE, (3,), r"expected 2 axes, found the shape \[3\]"),
        (CONV, (3, 4), "expected 4 axes"),
        (joined(3), (10,), r"expected 3 equal parts along axis 0, found the shape \[10\]"),
        (flattened(4), (5, 37), "square map of 4 channels, found 37"),
        (squeezed(0), (2, 3), r"of length 1, found the shape \[2, 3\]"),
    ],
)
def test_wrong_shapes_are_named(layout, shape, message):
    with pytest.raises(LayoutError, match=message):
        layout.load([np.zeros(shape)])


def test_parts_of_different_sizes_cannot_be_joined():
    with pytest.raises(LayoutError, match="expected equal parts"):
        joined(2).save([np.zeros(3), np.zeros(4)])
