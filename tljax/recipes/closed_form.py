"""LP-FT: a head in closed form on the frozen features, then everything is fine-tuned from there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax.evaluation import predict
from tljax.objectives import Term
from tljax.plans import Plan, plan
from tljax.probes import Ridge, ridge, temperature
from tljax.training import Result, fit
from tljax.training.inputs import labelled
from tljax.tree import map_named, named_leaves, select
from tljax.types import Array, Model, Params, TljaxError


class HeadError(TljaxError):
    """A head that is no linear function of the model's features."""


def closed_form_head(
    model: Model,
    params: Params,
    train: Any,
    *,
    head: Any = "head/**",
    strengths: Any = None,
    batch_size: int = 256,
) -> tuple[Params, Ridge]:
    """`params` with the ridge regression on the model's features as its head, and that regression.

    Features are computed in evaluation mode, once. The strength has the least exact leave-one-out error. For classes,
    the head is then scaled so that the labels left out are likeliest, since targets of +1 and -1 make logits that are
    small to a softmax: what fine-tuning starts from is a calibrated head. A class without examples gets weights 0.

    Args:
      train: labelled arrays, as `fit` takes them: classes, several labels, or targets.
      head: selects the head's kernel, `[D, C]` or, as in torch and Equinox, `[C, D]`, and its bias `[C]`.
      strengths: as `ridge` takes them.
      batch_size: examples that go through the model at once.

    Raises `HeadError` where the selected leaves are not those of a linear head, `ProbeError` where labels do not fit.

    Reference: Kumar et al. 2022, Fine-tuning can distort pretrained features and underperform out-of-distribution,
    arXiv:2202.10054.

    >>> from tljax.models import mlp
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((32,), num_classes=2)
    >>> params, found = closed_form_head(model, model.init(jax.random.key(0), x), (x, y))
    >>> bool(np.mean(np.argmax(model.apply(params, x).logits, -1) == y) > 0.9)
    True
    """
    x, y = labelled(train, "the training data")
    output = predict(model, params, x, batch_size=batch_size)
    width = output.logits.shape[-1]
    kernel, bias, turned = _head(params, head, (output.features.shape[-1], width))
    found = ridge(output.features, _targets(y, width), num_classes=width, strengths=strengths)
    scale = _scale(found, y, width)
    new = {kernel: (found.weights.T if turned else found.weights) * scale, bias: found.bias * scale}
    changed = map_named(lambda name, leaf: new[name].astype(leaf.dtype) if name in new else leaf, params)
    _check(model, changed, x, output.features[:2], (kernel, bias, turned))
    return changed, found


def lp_ft(
    model: Model,
    params: Params,
    objective: Term,
    plan: Plan = plan(),  # noqa: B008  (an immutable value)
    train: Any = None,
    valid: Any = None,
    *,
    optimizer: Any,
    head: Any = "head/**",
    **options: Any,
) -> Result:
    """`fit` from `closed_form_head`: linear probing, here exact and without a learning rate, then fine-tuning.

    Takes what `fit` takes; `head` selects the head.

    Raises as the two do.

    Reference: Kumar et al. 2022, arXiv:2202.10054.

    >>> import optax
    >>> from tljax.models import mlp
    >>> from tljax.objectives import cross_entropy
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((8,), num_classes=2)
    >>> result = lp_ft(model, model.init(jax.random.key(0), x), cross_entropy(), train=(x, y), valid=(x, y),
    ...                optimizer=optax.adam(1e-3), steps=2, progress=False)
    >>> bool(result.history[0]["accuracy"] > 0.8)
    True
    """
    start, _ = closed_form_head(model, params, train, head=head)
    return fit(model, start, objective, plan, train, valid, optimizer=optimizer, **options)


def _head(params: Params, head: Any, sides: tuple[int, int]) -> tuple[str, str, bool]:
    """The names of the head's kernel and bias, and whether the kernel is `[C, D]`."""
    leaves = named_leaves(params)
    names = select(head).names(params)
    kernels = [name for name in names if sorted(np.shape(leaves[name])) == sorted(sides)]
    biases = [name for name in names if np.shape(leaves[name]) == sides[1:]]
    if len(names) != 2 or len(kernels) != 1 or len(biases) != 1:
        shapes = ", ".join(f"{name} {list(np.shape(leaves[name]))}" for name in names)
        raise HeadError(
            f"a closed-form head needs a kernel [{sides[0]}, {sides[1]}] and a bias [{sides[1]}], which read the "
            f"features [N, {sides[0]}]; {select(head)} selects {shapes}. Name them with head=..."
        )
    shape = np.shape(leaves[kernels[0]])
    turned = shape != sides or (sides[0] == sides[1] and kernels[0].endswith("weight"))
    return kernels[0], biases[0], turned


def _targets(y: Any, width: int) -> Any:
    """Labels of a single output are 0 or 1, not two classes."""
    whole = not jnp.issubdtype(jnp.result_type(y), jnp.floating)
    return np.asarray(y)[:, None] if whole and width == 1 and np.ndim(y) == 1 else y


def _scale(found: Ridge, y: Any, width: int) -> Array:
    """How confident the head may be, by the predictions for what was left out; 1 where the labels are no classes."""
    if np.ndim(y) != 1 or jnp.issubdtype(jnp.result_type(y), jnp.floating) or width == 1:
        return jnp.ones((), found.weights.dtype)
    labels = np.asarray(y)
    told = np.bincount(labels)[labels] > 1  # without its only example, nothing is known of a class
    if not told.any():
        return jnp.ones((), found.weights.dtype)
    return 1 / temperature(found.loo[told], labels[told])


def _check(model: Model, params: Params, x: Any, features: Array, head: tuple[str, str, bool]) -> None:
    """Whether the model's logits are those of its new head."""
    logits = predict(model, params, jax.tree.map(lambda a: a[:2], x), batch_size=2).logits
    kernel, bias, turned = head
    leaves = named_leaves(params)
    weights = np.asarray(leaves[kernel], float)
    wanted = np.asarray(features, float) @ (weights.T if turned else weights) + np.asarray(leaves[bias], float)
    if not np.allclose(np.asarray(logits, float), wanted, rtol=0, atol=0.02 * np.abs(wanted).max()):  # bfloat16 inside
        raise HeadError(
            f"{model.name} does not compute features @ {kernel} + {bias}, so its head has no closed form: "
            f"expected logits {wanted[0].round(4).tolist()}, found {np.asarray(logits[0], float).round(4).tolist()}"
        )
