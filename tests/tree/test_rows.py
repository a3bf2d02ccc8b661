"""Rows by class name and by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.tree import ResizeError, head_rows, vocab_rows

classes = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@settings(deadline=None)
@given(classes, classes, st.integers(-2, 1))
def test_head_rows_is_a_lookup_by_name(old, new, axis):
    if not set(old) & set(new):
        with pytest.raises(ResizeError, match="no class in common"):
            head_rows(old, new)
        return
    shape = lambda n: (n, 3) if axis in (0, -2) else (3, n)  # noqa: E731
    source = np.arange(3.0 * len(old)).reshape(shape(len(old)))
    fresh = -1 - np.arange(3.0 * len(new)).reshape(shape(len(new)))
    out = head_rows(old, new, axis=axis)("head/kernel", source, fresh)
    for i, name in enumerate(new):
        wanted = source.take(old.index(name), axis) if name in old else fresh.take(i, axis)
        np.testing.assert_array_equal(out.take(i, axis), wanted)


def test_head_rows_on_kernel_and_bias():
    rule = head_rows(["cat", "dog", "cow"], ["cow", "owl"])
    np.testing.assert_array_equal(rule("bias", jnp.array([1.0, 2.0, 3.0]), jnp.array([8.0, 9.0])), [3, 9])
    kernel = rule("kernel", jnp.arange(6.0).reshape(2, 3), jnp.full((2, 2), 9.0))
    np.testing.assert_array_equal(kernel, [[2, 9], [5, 9]])
    assert str(rule) == "head_rows (1 of 2 classes)"


def test_the_target_is_not_written_to():
    fresh = np.zeros(2)
    head_rows(["a"], ["a", "b"])("bias", np.ones(1), fresh)
    np.testing.assert_array_equal(fresh, [0, 0])


def test_an_abstract_target_will_do_when_no_value_of_it_is_needed():
    abstract = jax.ShapeDtypeStruct((2,), jnp.float32)
    np.testing.assert_array_equal(head_rows(["a", "b"], ["b", "a"])("bias", np.float32([1, 2]), abstract), [2, 1])
    with pytest.raises(ResizeError, match=r"bias: 1 new classes have no source and keep.*target is abstract"):
        head_rows(["a"], ["b", "a"])("bias", np.float32([1]), abstract)


def test_half_precision_source_keeps_the_targets_fresh_values_exact():
    fresh = np.float32([0.1, 0.2])
    out = head_rows(["a"], ["a", "b"])("bias", jnp.array([0.5], jnp.bfloat16), fresh)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.float32([0.5, 0.2]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (["a", "a"], ["a"], "source_classes has 'a' twice"),
        (["a"], ["b", "b"], "target_classes has 'b' twice"),
        ("cat", ["cat"], "source_classes is a list of names"),
        (["a"], ["b"], "write reinit= instead"),
    ],
)
def test_classes_that_tell_nothing(old, new, message):
    with pytest.raises(ResizeError, match=message):
        head_rows(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ((2, 4), (2, 2), "3 source classes were named.*2, 4"),
        ((2, 3), (2, 5), "2 target classes.*2, 5"),
        ((), (2,), "axis"),
    ],
)
def test_head_rows_checks_lengths(old, new, message):
    with pytest.raises(ResizeError, match=message):
        head_rows(["a", "b", "c"], ["a", "d"])("head/kernel", np.zeros(old), np.zeros(new))


def test_rows_of_another_length_are_refused():
    with pytest.raises(ResizeError, match=r"source \[3, 2\] and target \[4, 2\] differ not only on axis -1"):
        head_rows(["a", "b"], ["a", "c"])("head/kernel", np.zeros((3, 2)), np.zeros((4, 2)))


TABLE = np.float32([[1, 2], [3, 4], [5, 12]])


@pytest.mark.parametrize(
    ("rule", "rows", "expected"),
    [
        (vocab_rows(), 2, [[1, 2], [3, 4]]),
        (vocab_rows(), 4, [[1, 2], [3, 4], [5, 12], [-1, -1]]),
        (vocab_rows(new="mean"), 5, [[1, 2], [3, 4], [5, 12], [3, 6], [3, 6]]),
        (vocab_rows(["a", "b", "c"], ["c", "x", "a"]), 3, [[5, 12], [-1, -1], [1, 2]]),
        (vocab_rows(["a", "b", "c"], ["c", "x"], new="mean"), 2, [[5, 12], [3, 6]]),
        (vocab_rows(["a", "b"], ["b"]), 3, [[3, 4], [-1, -1], [-1, -1]]),
        (vocab_rows(["a", "b"], ["b"], new="mean"), 2, [[3, 4], [2, 3]]),
    ],
)
def test_vocab_rows(rule, rows, expected):
    out = rule("embedding", TABLE, np.full((rows, 2), -1, np.float32))
    np.testing.assert_array_equal(out, expected)
    bias = rule("bias", TABLE[:, 0], np.full(rows, -1, np.float32))
    np.testing.assert_array_equal(bias, np.array(expected)[:, 0])


def test_vocab_rows_refuses_what_it_cannot_tell():
    with pytest.raises(ResizeError, match="both token lists, or none"):
        vocab_rows(["a"])
    with pytest.raises(ResizeError, match="'fresh' or 'mean'"):
        vocab_rows(new="zero")
    with pytest.raises(ResizeError, match="no token in common"):
        vocab_rows(["a"], ["b"])
    with pytest.raises(ResizeError, match="step: no vocabulary tables"):
        vocab_rows()("step", np.zeros(()), np.zeros(3))
    with pytest.raises(ResizeError, match="4 source and 1 target tokens need at least as many rows"):
        vocab_rows(["a", "b", "c", "d"], ["a"])("embedding", TABLE, TABLE)
