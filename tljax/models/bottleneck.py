"""A bottleneck between the backbone of any model and a new linear head."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.models.classifier import classifier
from tljax.models.wrapping import ModelError, statistics_after, wrapped
from tljax.tree import named_leaves, select
from tljax.types import Array, Key, Model, Output, Params

_WHERE = "backbone/bottleneck/"


def with_bottleneck(
    model: Model,
    width: int = 256,
    *,
    norm: str | None = "batch",
    dropout: float = 0.0,
    num_classes: int | None = None,
) -> Model:
    """`model` with a dense layer between its features and a new linear head.

        features = dropout(relu(norm(dense(features of model)))),    logits = head(features)

    Methods that align features work on few of them: `[B, width]` instead of the hundreds or thousands of a backbone.

    Args:
      model: any model: of the catalogue, of `from_flax`, of `from_nnx`, or with a head that is more than linear.
      width: of the new features.
      norm: "batch" for a BatchNorm before the ReLU (momentum 0.9, epsilon 1e-5), or None.
      dropout: rate after the ReLU.
      num_classes: outputs of the new head; by default as many as `model` has.

    The parameters are those of the model's backbone under their own names, the new ``backbone/bottleneck/**``, and a
    new ``head/{kernel,bias}``; the model's own head is gone. So the weights of the model are grafted with
    ``reinit=["backbone/bottleneck/**", "head/**"]``. In `groups` the bottleneck stands between the last group of the
    backbone and the head. `keymaps` are empty: no other project's file has these leaves.

    Raises `ModelError` for options that are none, and from `init` where the model has a
    ``backbone/bottleneck`` already.

    Reference: the bottleneck of domain-adversarial networks, Ganin et al. 2016, arXiv 1505.07818; with BatchNorm as in
    TLlib.

    >>> from tljax.models import mlp
    >>> from tljax.tree import leaf_names
    >>> model = with_bottleneck(mlp((5,), num_classes=3), 4, norm=None)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 6)))
    >>> leaf_names(params["backbone"]), params["head"]["kernel"].shape
    (['block_00/dense/bias', 'block_00/dense/kernel', 'bottleneck/dense/bias', 'bottleneck/dense/kernel'], (4, 3))
    >>> model.groups
    ('backbone/block_00/**', 'backbone/bottleneck/**', 'head/**')
    """
    _check(width, norm, dropout)

    def tail(classes: int) -> Model:
        return classifier(_Tail(width, norm, dropout), classes, groups=("bottleneck",), name="bottleneck")

    if num_classes is not None:
        tail(num_classes)  # raises for a number that is none

    def init(key: Key, x: Any) -> Params:
        params = model.init(key, x)
        out = jax.eval_shape(model.apply, params, x)
        backbone = params.get("backbone", {})  # a linear model has none
        if "bottleneck" in backbone:
            raise ModelError(f"{model.name} has a 'backbone/bottleneck' already, so with_bottleneck cannot add one")
        classes = out.logits.shape[-1] if num_classes is None else num_classes
        new = tail(classes).init(jax.random.fold_in(key, 1), out.features)
        return params | {"backbone": backbone | new["backbone"], "head": new["head"]}

    def run(params: Params, x: Any, train: bool, key: Key | None, frozen: frozenset[str]) -> Output:
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        new = {name for name in frozen if name.startswith(_WHERE)}
        inside = model.apply(_inner(model, params, x), x, train=train, key=keys[0], frozen=frozen - new)
        end = {"backbone": {"bottleneck": params["backbone"]["bottleneck"]}, "head": params["head"]}
        out = tail(params["head"]["kernel"].shape[-1]).apply(end, inside.features, train=train, key=keys[1], frozen=new)
        return out._replace(stats=_joined(params, inside.stats, out.stats))

    return wrapped(init, run, f"{model.name}+bottleneck", _groups(model.groups))


class _Tail(nn.Module):
    """Only a name above the bottleneck, so that its leaves stand at ``backbone/bottleneck/**``."""

    width: int
    norm: str | None
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        return _Bottleneck(self.width, self.norm, self.dropout, name="bottleneck")(x, train)


class _Bottleneck(nn.Module):
    width: int
    norm: str | None
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Dense(self.width, name="dense")(x)
        if self.norm == "batch":
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")(x)
        return nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))


def _check(width: Any, norm: Any, dropout: Any) -> None:
    if not isinstance(width, int) or width < 1:
        raise ModelError(f"with_bottleneck: width={width!r}; expected a whole number, 1 or more")
    if norm not in ("batch", None):
        raise ModelError(f"with_bottleneck: norm={norm!r}; expected 'batch' or None")
    if not 0 <= dropout < 1:
        raise ModelError(f"with_bottleneck: dropout={dropout!r}; expected a rate from 0 to below 1")


def _inner(model: Model, params: Params, x: Any) -> Params:
    """The parameters as `model` itself has them; its head is zeros, whose logits nobody reads and XLA leaves out."""
    own = jax.eval_shape(model.init, jax.random.key(0), x)
    backbone = {name: value for name, value in params["backbone"].items() if name != "bottleneck"}
    head = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), own.get("head"))
    inner = params | {"backbone": backbone, "head": head}
    return inner if "head" in own else {name: value for name, value in inner.items() if name != "head"}


def _joined(params: Params, *parts: Params) -> Params:
    """The statistics of both parts in the structure of `params`; None where there are none."""
    given = [named_leaves(part) for part in parts if part is not None]
    fresh: Mapping[str, Any] = {name: leaf for part in given for name, leaf in part.items()}
    if not fresh:
        return None
    return statistics_after(params, fresh, ())


def _groups(groups: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of the backbone, less what they would take of the new leaves; the bottleneck; the head."""
    new = ("backbone/bottleneck/**", "head/**")
    body = [group for group in groups if not str(group).startswith("head")]
    for leaf, taken in zip((f"{_WHERE}dense/kernel", "head/kernel"), new):
        body = [select(group) & ~select(taken) if select(group).matches(leaf) else group for group in body]
    return (*body, *new)
