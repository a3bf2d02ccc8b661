"""How good a model is: metrics, their uncertainty, and whether transfer helped."""

from tljax.evaluation.confusion import classification, multilabel
from tljax.evaluation.metrics import Metric, MetricError, combine
from tljax.evaluation.ranking import auroc
from tljax.evaluation.residuals import regression

__all__ = [
    "Metric",
    "MetricError",
    "auroc",
    "classification",
    "combine",
    "multilabel",
    "regression",
]
