"""What is evaluated on the validation data, and which number of it chooses the best parameters."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import Metric, Validator, classification, multilabel, regression
from tljax.evaluation.evaluate import outputs_of, shape_text
from tljax.training.choosing import Chooser
from tljax.training.inputs import FitError
from tljax.training.program import score
from tljax.tree import nearest
from tljax.types import Batch, Model, Params

LESS_IS_BETTER = ("loss", "nll", "brier", "ece", "mae", "mse", "rmse")
MORE_IS_BETTER = ("accuracy", "exact_match", "precision", "recall", "f1", "auroc", "r2")
"""The last part of such a name, as in ``macro_f1``; ``top_5`` too."""

USUAL = ("accuracy", "rmse")
"""What is watched where nobody says otherwise."""


class Monitor(NamedTuple):
    """The number that is watched."""

    metric: Metric | None
    """None where a validator chooses."""
    name: str
    sign: int
    """+1 where more is better, else -1."""


def choose_monitor(
    model: Model, params: Params, train: tuple[Any, Any], valid: Batch | Chooser | None, *,
    task: str | None, metric: Metric | Validator | None, name: str | None, minimize: bool | None,
) -> Monitor | None:  # fmt: skip
    """What to watch of the model's outputs; None without validation data. Raises `FitError` where labels do not fit.

    `train`: inputs and labels on the device. `task`: "classes", "labels" or "regression" where the data say what
    their labels are. `metric`, `name`, `minimize`: the caller's choice, or None.
    """
    x, y = train
    width = outputs_of(model, params, x, error=FitError)
    if isinstance(valid, Chooser):
        if name is not None or minimize is not None:
            raise FitError(f"metric={valid.validator} says what chooses: leave monitor and minimize out")
        if y is not None:
            _check_labels(_kind(y, task), y, width, f"the training labels of {model.name}")
        return Monitor(None, valid.validator.number, 1)
    assert not isinstance(metric, Validator)  # without its data it was refused
    if metric is None and y is not None:
        kind = _kind(y, task)
        _check_labels(kind, y, width, f"the training labels of {model.name}")
        if valid is not None:
            _check_labels(kind, jnp.concatenate(list(valid.y)), width, f"the validation labels of {model.name}")
        metric = _default(kind, width)
    if valid is None:
        return None
    if metric is None:
        raise FitError("the training data have no labels, so say what to evaluate: metric=...")
    outputs_of(model, params, jax.tree.map(lambda a: a[0], valid.x), " of the validation data", FitError)
    known = _numbers(model, metric, params, valid)
    if name is None:
        usual = [number for number in known if number in USUAL or len(known) == 1]
        if len(usual) != 1:
            raise FitError(f"say which number of the metric chooses the best step: monitor=one of {', '.join(known)}")
        name = usual[0]
    if name not in known:
        close = nearest(name, known)
        raise FitError(
            f"monitor={name!r} is no number of the metric; it has {', '.join(known)}"
            + (f". Did you mean {close[0]!r}?" if close else "")
        )
    return Monitor(metric, name, _sign(name, minimize))


def _kind(y: Any, task: str | None) -> str:
    """What the labels are: "classes", "soft" (a distribution over them), "labels" (several) or "regression"."""
    if not isinstance(y, jax.Array):
        raise FitError("the labels are a tree of arrays, so say what to evaluate: metric=...")
    if task == "regression":
        return task
    if y.ndim == 1:
        return "regression" if jnp.issubdtype(y.dtype, jnp.floating) else "classes"
    values = np.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return "labels"
    if values.ndim == 2 and values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=1e-3):
        return "soft"
    return "labels" if task == "labels" or np.isin(values, (0, 1)).all() else "regression"


def _check_labels(kind: str, y: Any, width: int, what: str) -> None:
    if kind != "classes":
        if (y.shape[1:] or (1,)) != (width,):
            raise FitError(
                f"{what} are {shape_text(y)}, and it has {width} outputs: expected [N, {width}]. For classes give "
                "integers, as y.astype('int32'); for other labels metric=..."
            )
    elif y.ndim != 1 or jnp.issubdtype(y.dtype, jnp.floating):
        raise FitError(f"{what} are {shape_text(y)}; expected classes, integers [N]")
    elif int(y.min()) < 0 or int(y.max()) >= width:
        raise FitError(
            f"{what} go from {y.min()} to {y.max()}, and it has {width} outputs: expected 0..{width - 1}. For labels "
            "that are no classes give metric=..."
        )


@functools.cache  # equal arguments give the same metric, so that what is compiled for it is found again
def _default(kind: str, width: int) -> Metric:
    if kind == "soft":
        hard = classification(width)
        return hard._replace(update=lambda sums, logits, y, w: hard.update(sums, logits, jnp.argmax(y, -1), w))
    if kind == "regression":
        return regression(width)
    return classification(width) if kind == "classes" else multilabel(width)


def _numbers(model: Model, metric: Metric, params: Params, valid: Batch) -> list[str]:
    """The names of the metric's scalars."""
    return sorted(jax.eval_shape(lambda p, v: score(model, metric, p, v), params, valid))


def _sign(name: str, minimize: bool | None) -> int:
    last = name.rsplit("_", 1)[-1]
    if minimize is not None:
        return -1 if minimize else 1
    if last in LESS_IS_BETTER:
        return -1
    if last in MORE_IS_BETTER or name in MORE_IS_BETTER or name.startswith("top_"):
        return 1
    raise FitError(f"monitor={name!r}: say whether less of it is better: minimize=True, or False")
