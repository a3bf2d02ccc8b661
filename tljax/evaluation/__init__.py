"""How good a model is: metrics, their uncertainty, and whether transfer helped."""

from tljax.evaluation.confusion import classification, multilabel
from tljax.evaluation.evaluate import EvaluationError, evaluate, predict
from tljax.evaluation.gain import Gain, Verdict, paired_gain, verdict
from tljax.evaluation.metrics import Metric, MetricError, combine
from tljax.evaluation.ranking import auroc
from tljax.evaluation.residuals import regression
from tljax.evaluation.statistics import Interval, StatisticsError, bootstrap, interval, wilson
from tljax.evaluation.table import Evaluation

__all__ = [
    "Evaluation",
    "EvaluationError",
    "Gain",
    "Interval",
    "Metric",
    "MetricError",
    "StatisticsError",
    "Verdict",
    "auroc",
    "bootstrap",
    "classification",
    "combine",
    "evaluate",
    "interval",
    "multilabel",
    "paired_gain",
    "predict",
    "regression",
    "verdict",
    "wilson",
]
