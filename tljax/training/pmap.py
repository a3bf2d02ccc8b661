"""The training step under `jax.pmap`: a copy of the state on every device, and a part of the batch for each.

A mesh does as much and more (`fit(mesh=...)`), and there the loss is that of the whole batch, whatever it is. Here
every device computes the loss of its own examples; gradients, metrics and statistics are averaged. For losses that are
a mean over examples that is the same; those that compare examples with each other compare those of one device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from tljax.objectives import Term
from tljax.plans import Resolved
from tljax.training.state import State
from tljax.training.step import Batches, Metrics, Step, StepError, make_step
from tljax.types import Array, Model

AXIS = "batch"
"""The name of the axis of devices: what an NNX module's own BatchNorm needs as `axis_name`."""


def pmap_step(
    model: Model,
    objective: Term,
    plan: Resolved,
    optimizer: Any,
    *,
    devices: Sequence[jax.Device] | None = None,
    **options: Any,
) -> Step:
    """The step of `make_step`, whose `update` runs on several devices by `jax.pmap`.

    It takes and returns the state as on one device, and batches `[B, ...]` whose B the number of devices divides.
    BatchNorm in Linen modules uses the statistics of the whole batch. Dropout draws other numbers than on one device.

    Args:
      model, objective, plan, optimizer: as for `make_step`; no optimiser that evaluates the loss itself.
      devices: default: all of this process.
      options: of `make_step`.

    Raises:
      StepError: from `update`, a batch that does not divide.

    >>> import jax.numpy as jnp, optax
    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> from tljax.plans import plan
    >>> from tljax.types import Batch
    >>> model, x = mlp((8,), num_classes=2), jnp.ones((4, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> step = pmap_step(model, cross_entropy(), plan().resolve(params), optax.sgd(0.1), devices=jax.devices()[:1])
    >>> batches = {"train": Batch(x, jnp.array([0, 1, 0, 1]))}
    >>> state, metrics = step.update(step.init(params, batches, seed=0), batches)
    >>> int(state.step), metrics["loss"].shape
    (1, ())
    """
    found = list(jax.local_devices() if devices is None else devices)
    step = make_step(model, objective, plan, optimizer, axis_name=AXIS, **options)

    def on_each(state: State, batches: Batches) -> tuple[State, Metrics]:
        with nn.intercept_methods(_synchronised):
            return step.update(state, batches)

    mapped = jax.pmap(on_each, AXIS, in_axes=(None, 0), out_axes=None, devices=found)

    def update(state: State, batches: Batches) -> tuple[State, Metrics]:
        return mapped(state, jax.tree.map(lambda leaf: _divided(leaf, len(found)), dict(batches)))

    return step._replace(update=update)


def _divided(leaf: Array, parts: int) -> Array:
    if leaf.shape[0] % parts:
        raise StepError(f"a batch of {leaf.shape[0]} examples cannot be divided over {parts} devices")
    return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])


def _synchronised(call: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
    """Runs a BatchNorm with the axis of devices as its `axis_name`, unless it has one."""
    module = context.module
    if not isinstance(module, nn.BatchNorm) or module.axis_name is not None:
        return call(*args, **kwargs)
    object.__setattr__(module, "axis_name", AXIS)  # a copy with another field could not write its statistics here
    try:
        return call(*args, **kwargs)
    finally:
        object.__setattr__(module, "axis_name", None)
