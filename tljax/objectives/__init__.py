"""What is minimised: an objective is a sum of terms."""

from tljax.objectives.classification import (
    binary_cross_entropy,
    binary_cross_entropy_losses,
    cross_entropy,
    cross_entropy_losses,
)
from tljax.objectives.mean import weighted_mean
from tljax.objectives.parameters import StartError, l2_sp
from tljax.objectives.regression import absolute_errors, huber, huber_losses, mae, mse, squared_errors
from tljax.objectives.reversal import reversed_gradient
from tljax.objectives.schedules import ScheduleError, warm_up
from tljax.objectives.stream import LabelError, StreamError
from tljax.objectives.term import Metrics, Owned, Scene, Schedule, Term, objective, stateless

__all__ = [
    "LabelError",
    "Metrics",
    "Owned",
    "Scene",
    "Schedule",
    "ScheduleError",
    "StartError",
    "StreamError",
    "Term",
    "absolute_errors",
    "binary_cross_entropy",
    "binary_cross_entropy_losses",
    "cross_entropy",
    "cross_entropy_losses",
    "huber",
    "huber_losses",
    "l2_sp",
    "mae",
    "mse",
    "objective",
    "reversed_gradient",
    "squared_errors",
    "stateless",
    "warm_up",
    "weighted_mean",
]
