"""How good a model is: metrics, their uncertainty, and whether transfer helped."""

from tljax.evaluation.calibration import calibration_error
from tljax.evaluation.compute import steps_to
from tljax.evaluation.confusion import classification, multilabel
from tljax.evaluation.distance import a_distance
from tljax.evaluation.evaluate import EvaluationError, evaluate, predict
from tljax.evaluation.gain import Gain, Verdict, negative_transfer, paired_gain, verdict
from tljax.evaluation.label_efficiency import LabelFactor, label_curve_area, label_factors
from tljax.evaluation.metrics import Metric, MetricError, combine
from tljax.evaluation.ranking import auroc
from tljax.evaluation.residuals import regression
from tljax.evaluation.retention import Forgetting, before_head, cka, forgetting, tradeoff, weight_distance
from tljax.evaluation.statistics import Interval, StatisticsError, bootstrap, interval, wilson
from tljax.evaluation.table import Evaluation
from tljax.evaluation.validator import VALIDATORS, Answers, Validator, validator
from tljax.evaluation.variance import Components, variance_components

__all__ = [
    "VALIDATORS",
    "Answers",
    "Components",
    "Evaluation",
    "EvaluationError",
    "Forgetting",
    "Gain",
    "Interval",
    "LabelFactor",
    "Metric",
    "MetricError",
    "StatisticsError",
    "Validator",
    "Verdict",
    "a_distance",
    "auroc",
    "before_head",
    "bootstrap",
    "calibration_error",
    "cka",
    "classification",
    "combine",
    "evaluate",
    "forgetting",
    "interval",
    "label_curve_area",
    "label_factors",
    "multilabel",
    "negative_transfer",
    "paired_gain",
    "predict",
    "regression",
    "steps_to",
    "tradeoff",
    "validator",
    "variance_components",
    "verdict",
    "weight_distance",
    "wilson",
]
