"""How good a model is: metrics, their uncertainty, and whether transfer helped."""

from tljax.evaluation.calibration import Tempered, calibration_error, tempered
from tljax.evaluation.compute import steps_to
from tljax.evaluation.confusion import classification, multilabel
from tljax.evaluation.evaluate import EvaluationError, evaluate, predict
    "label_curve_area",
    "label_factors",
