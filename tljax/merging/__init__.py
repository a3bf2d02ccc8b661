"""Weight space: averages, paths and soups of models that started from the same weights.

Every function takes whole parameter trees, statistics included, and gives one back. After any of them `recalibrate` a
model with BatchNorm.
"""

from tljax.merging.averages import average, interpolate, model_stock, slerp, wise_ft
from tljax.merging.fisher import fisher, fisher_merge
from tljax.merging.models import MergingError
from tljax.merging.recalibrate import recalibrate
from tljax.merging.regmean import Gram, grams, regmean
from tljax.merging.running import Running, ema, running, swa
from tljax.merging.soups import Soup, Trial, greedy_soup
from tljax.merging.stacking import evaluate_stacked, stack, unstack
from tljax.merging.tasks import dare, task_arithmetic, task_vector, ties

__all__ = [
    "Gram",
    "MergingError",
    "Running",
    "Soup",
    "Trial",
    "average",
    "dare",
    "ema",
    "evaluate_stacked",
    "fisher",
    "fisher_merge",
    "grams",
    "greedy_soup",
    "interpolate",
    "model_stock",
    "recalibrate",
    "regmean",
    "running",
    "slerp",
    "stack",
    "swa",
    "task_arithmetic",
    "task_vector",
    "ties",
    "unstack",
    "wise_ft",
]
