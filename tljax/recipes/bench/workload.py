"""What a configuration trains: model, parameters, objective, plan, optimiser, and random data of the right form."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.checkpoints import open_weights
from tljax.models import build, load_pretrained, with_bottleneck
from tljax.models.catalog import CATALOG
from tljax.models.recognition import recognise
from tljax.objectives import Term, cross_entropy
from tljax.plans import Plan, plan
from tljax.recipes.adapting.expression import read_call
from tljax.recipes.adapting.methods import VIEWS, approach
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.adapting.setup import FRESH
from tljax.recipes.adapting.train import compares_views, rules
from tljax.recipes.adapting.train import optimizer as adapting_optimizer
from tljax.recipes.bench.inputs import (
    ROW,
    SIDE,
    VOCABULARY,
    check_inputs,
    check_parameters,
    example_of,
    random_examples,
    random_labels,
)
from tljax.recipes.bench.settings import CACHED, HEAD_ONLY, Configuration
from tljax.recipes.finetune.bench import HEAD
from tljax.recipes.finetune.methods import BASELINE, METHODS, Options, prepared
from tljax.recipes.options import SettingsError
from tljax.tree import graft, named_leaves, select
from tljax.types import Batch, Key, Model, Params

BATCHES = 4
"""How many batches of examples lie on the device."""


class Workload(NamedTuple):
    """What `fit` would be given."""

    model: Model
    params: Params
    objective: Term
    plan: Plan
    optimizer: Any
    train: Any
    """Pairs of inputs and labels by stream, on the device."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Of `fit`: what views there are, and how they come about."""


class Start(NamedTuple):
    """A model at its start."""

    model: Model
    params: Params
    example: Any
    """Shapes of a batch of one."""


def load_workload(configuration: Configuration, seed: int) -> Workload:
    """The workload of `configuration`, drawn from `seed`.

    Raises:
      CheckpointError, KeymapError, ModelError: a model that does not exist, or cannot be read or built.
      SettingsError: options that do not suit the model.
      BenchError: constant parameters or inputs.
    """
    c, key = configuration, jax.random.key(seed)
    start = _start(c, jax.random.fold_in(key, 0))
    check_parameters(start.params, c.model)
    make = _tuned if c.method in (*METHODS, HEAD_ONLY) else _adapted
    return make(c, start, jax.random.fold_in(key, 1))


def _start(c: Configuration, key: Key) -> Start:
    if c.model not in CATALOG and (c.model.startswith("hf://") or pathlib.Path(c.model).exists()):
        found = recognise(open_weights(c.model), {})
        example = example_of(found.example, c, c.model)
        loaded = load_pretrained(c.model, num_classes=c.classes, example=example, reinit="head/**", key=key)
        return Start(loaded.model, jax.tree.map(jnp.asarray, loaded.params), example)
    call = read_call(c.model)
    model = build(call.name, c.classes, **call.options)
    example = example_of(_usual(call.name), c, c.model)
    return Start(model, _initialised(model, example, key), example)


def _usual(name: str) -> Any:
    """The inputs of a model of the catalogue."""
    shape = (1, SIDE, SIDE, 3) if name.startswith("vit") else (1, ROW)
    return CATALOG[name].example or jax.ShapeDtypeStruct(shape, jnp.float32)


def _initialised(model: Model, example: Any, key: Key) -> Params:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
    return jax.jit(lambda key: model.init(key, zeros))(key)


def _tuned(c: Configuration, start: Start, key: Key) -> Workload:
    """A method of `tljax finetune`."""
    method = METHODS[BASELINE if c.method == HEAD_ONLY else c.method]
    x, y = _drawn("train", c, start, key)
    model, params, rate = start.model, start.params, method.rates_for(start.params)[0]
    if c.method == CACHED:
        x = jax.random.normal(key, (len(y), _width(c, start)), jnp.float32)
        model, params, how = HEAD, {"head": params["head"]}, plan()
    else:
        model, params, how = prepared(method, model, params, Options(c.target, c.rank, c.alpha, key))
    return Workload(model, params, cross_entropy(), how, optax.adamw(rate), {"train": (x, y)})


def _width(c: Configuration, start: Start) -> int:
    """Features of an example, which the head reads."""
    head = start.params["head"]
    if set(named_leaves(head)) != {"kernel", "bias"} or jnp.ndim(head["kernel"]) != 2:
        raise SettingsError(f"method {c.method!r} needs a linear head; that of {c.model!r} has {', '.join(head)}")
    return head["kernel"].shape[0]


def _adapted(c: Configuration, start: Start, key: Key) -> Workload:
    """A method of `tljax adapt`: labelled examples of the source, as many of each other stream without labels.

    Views of the target are drawn apart and stored together, so what augmenting them costs is not in the step.
    """
    method, usual = approach(c.method), AdaptSettings()
    model, params = start.model, start.params
    if method.bottleneck:
        model = with_bottleneck(model, method.bottleneck)
        params = graft(_initialised(model, start.example, key), params, reinit=list(FRESH))[0]
    x, y = _drawn("source", c, start, key)
    others = [name for name in method.objective.streams if name not in ("train", "source")]
    unlabelled = {name: _drawn(name, c, start, jax.random.fold_in(key, i))[0] for i, name in enumerate(others, 1)}
    options: dict[str, Any] = {}
    if compares_views(method):
        options = {"views": VIEWS, "augment": {name: _stored(name) for name in unlabelled}}
        unlabelled = dict.fromkeys(VIEWS.values(), unlabelled)
    train = {"source" if others else "train": (x, y), **{name: (x, None) for name, x in unlabelled.items()}}
    optimizer = adapting_optimizer(usual.learning_rate, usual.weight_decay, method.steady)
    return Workload(model, params, method.objective, rules(1.0, bool(method.bottleneck)), optimizer, train, options)


@functools.cache
def _stored(name: str) -> Callable[[Key, Batch], Batch]:
    """Takes of examples that hold several views the one called `name`; the same function each time, so that a step that
    was compiled is found again."""
    return lambda key, batch: batch._replace(x=batch.x[name])


def _drawn(stream: str, c: Configuration, start: Start, key: Key) -> tuple[Any, Any]:
    """Inputs and labels of a few batches; raises `BenchError` for constant ones."""
    count = BATCHES * c.batch
    tokens = select(VOCABULARY).names(start.params, required=False)
    rows = named_leaves(start.params)[tokens[0]].shape[0] if tokens else None

    def draw(key: Key) -> tuple[Any, Any]:
        x_key, y_key = jax.random.split(key)
        return random_examples(x_key, start.example, count, rows), random_labels(y_key, count, c.classes)

    x, y = jax.jit(draw)(key)
    check_inputs(x, f"the inputs of the stream {stream!r}")
    return x, y
