"""What each of several processes reads of a stream's batches."""

import numpy as np
import pytest

from tljax.data import InTurn, Part, Shuffled, stream


@pytest.mark.parametrize("size", [8, 3])
def test_the_parts_of_all_processes_are_the_batch(size):
    rows = [np.arange(0, 2), np.arange(2, 4), np.array([4, 6]), np.array([5, 7])]
    for order in (Shuffled(3, 8, 21), InTurn(size, 21)):
        for step in range(7):
            parts = [Part(order, own)(step) for own in rows]
            np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(order(step)))


def test_no_examples_have_the_shape_of_examples():
    data = stream([(np.zeros((2, 3), np.float32), 1)] * 4)
    none = data.examples(np.zeros(0, np.int32))
    assert none.x.shape == (0, 2, 3)
    assert none.y.shape == (0,)
    assert none.x.dtype == data.examples([0]).x.dtype
