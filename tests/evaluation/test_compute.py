"""The step at which a run came near to its end."""

import math

import pytest

from tljax.evaluation import StatisticsError, steps_to

STEPS, VALUES = [0, 10, 20, 30, 40], [0.2, 0.73, 0.79, 0.8, 0.76]


def test_shares_of_the_best():
    assert [steps_to(STEPS, VALUES, share=share) for share in (0.25, 0.9, 0.95, 0.99, 1.0)] == [0, 10, 20, 30, 30]


def test_a_common_goal():
    assert steps_to(STEPS, VALUES, share=0.95, final=0.75) == 10
    assert steps_to(STEPS, VALUES, share=0.95, final=0.9) is None


def test_losses_fall():
    assert steps_to(STEPS, [4.0, 2.1, 2.0, 2.5, 3.0], share=0.95, higher_is_better=False) == 10


def test_holes_are_passed_over():
    assert steps_to(STEPS, [math.nan, None, 0.5, 0.5, None]) == 20
    assert steps_to(STEPS, [None] * 5) is None
    assert steps_to([], []) is None
    assert steps_to(STEPS, VALUES, final=math.nan) is None


def test_bad_input():
    with pytest.raises(StatisticsError):
        steps_to([1], [])
    with pytest.raises(StatisticsError):
        steps_to([1], [1.0], share=0.0)
