"""Co-tuning: the source's head learns too, from target labels translated into source categories."""

from typing import Any

import jax.numpy as jnp

from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.describe import describe
from tljax.objectives.frozen import HeadError, head_logits, source_head_copy
from tljax.objectives.mean import weighted_mean, widened
from tljax.objectives.stream import LabelError, labelled, output_of, prefix
from tljax.objectives.term import Metrics, Owned, Scene, Term
from tljax.types import Array, Key, Params, TljaxError


class RelationshipError(TljaxError):
    """Numbers that are no relationship of categories, or of which none can be made."""


def direct_relationship(probabilities: Array, labels: Array, *, num_classes: int | None = None) -> Array:
    """How likely each source category is for each target class, `[C, C0]`: the mean over the examples of the class.

    ``R[y, z] = mean of p(z | x_i) over the i with y_i = y``.

    Args:
        probabilities: of the source's classifier for target examples, `[N, C0]`, best from logits divided by a
            calibrated temperature (`tl.probes.temperature` on data of the source), and without augmentation.
        labels: target classes `[N]` int.
        num_classes: C; by default as many as the largest label needs.

    Raises:
        RelationshipError: shapes that do not fit, rows that are no distributions, a class without examples.

    Reference: You et al. 2020, Co-tuning for transfer learning, NeurIPS 2020.

    >>> p = jnp.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    >>> print(direct_relationship(p, jnp.array([0, 0, 1])))
    [[0.625 0.375]
     [0.125 0.875]]
    """
    p, labels = widened(probabilities), jnp.asarray(labels)
    if p.ndim != 2 or not p.size or labels.shape != p.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise RelationshipError(
            f"a relationship needs probabilities [N, C0] and integer labels [N]; found {p.shape} and {labels.shape} "
            f"{labels.dtype}"
        )
    _check_rows(p, "probabilities")
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    member = (labels[None] == jnp.arange(classes, dtype=labels.dtype)[:, None]).astype(p.dtype)
    sizes = jnp.sum(member, axis=1)
    empty = [int(c) for c in jnp.flatnonzero(sizes == 0)]
    if empty or bool(jnp.any((labels < 0) | (labels >= classes))):
        found = f"no examples of {empty}" if empty else f"labels {int(labels.min())} to {int(labels.max())}"
        raise RelationshipError(f"a relationship needs examples of all {classes} classes and no others; found {found}")
    return jnp.matmul(member, p, precision="highest") / sizes[:, None]


def reverse_relationship(target_given_source: Array, prior: Array) -> Array:
    """How likely each source category is for each target class, `[C, C0]`, by Bayes' rule from the reverse.

    ``R[y, z] = p(y | z) p(z) / sum_z' p(y | z') p(z')``. The paper prefers it to `direct_relationship` where target
    labels are few: p(y | z) is a calibrated logistic regression from the source's probabilities to target classes,
    asked for one category at a time; `tl.recipes.category_relationship` fits it.

    Args:
        target_given_source: p(y | z), `[C0, C]`, rows that sum to 1.
        prior: p(z), `[C0]`, such as the mean of the source's probabilities; it need not sum to 1.

    Raises:
        RelationshipError: shapes that do not fit, rows that are no distributions, a prior that is 0 or below.

    Reference: You et al. 2020, Co-tuning for transfer learning, NeurIPS 2020.

    >>> print(reverse_relationship(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([0.5, 0.5])))
    [[0.75 0.25]
     [0.25 0.75]]
    """
    likelihood, prior = widened(target_given_source), widened(prior)
    if likelihood.ndim != 2 or prior.shape != likelihood.shape[:1]:
        raise RelationshipError(
            f"a reverse relationship needs p(y | z) [C0, C] and p(z) [C0]; found {likelihood.shape} and {prior.shape}"
        )
    _check_rows(likelihood, "p(y | z)")
    if not bool(jnp.all((prior >= 0) & jnp.isfinite(prior))):
        raise RelationshipError("the prior of the source categories must be finite and 0 or more")
    joint = likelihood.T * prior.astype(likelihood.dtype)[None]
    mass = jnp.sum(joint, axis=1, keepdims=True)
    if not bool(jnp.all(mass > 0)):
        raise RelationshipError(f"no category leads to the classes {jnp.flatnonzero(mass[:, 0] <= 0).tolist()}")
    return joint / mass


def co_tuning(relationship: Array, source_head: Params, *, stream: str = "train") -> Term:
    """Co-tuning: the source's head on the model's features predicts the source categories of the target label.

    The mean over the batch of ``- sum_z R[y, z] log softmax(h(features))_z``; of soft labels `[B, C]`, as mixup makes
    them, the rows of R are mixed alike. An integer outside gives NaN. The published weight is 2.3. Logs `co_tuning`.

    The term owns the head h, which starts at `source_head` and is trained with the model by the same optimiser. The
    published code trains it at a tenth of the fresh head's rate, as the backbone; here what terms own has the plan's
    base rate, so give the fresh head the larger one: ``tl.plan(tl.rate("head/**", 10.0))``.

    Args:
        relationship: R, `[C, C0]`, rows that sum to 1, from `direct_relationship` or `reverse_relationship`.
        source_head: ``{"kernel": [D, C0], "bias": [C0]}``; the bias may be missing.
        stream: whose inputs and labels are read.

    Raises:
        RelationshipError: rows that are no distributions. HeadError: at `init`, a head of another width, or of
        another number of categories than the relationship has. LabelError: other classes than it has.

    Reference: You et al. 2020, Co-tuning for transfer learning, NeurIPS 2020.

    >>> print(2.3 * co_tuning(jnp.eye(2), {"kernel": jnp.ones((4, 2))}))
    2.3 * co_tuning(relationship, source_head)
    """
    text = describe(co_tuning, "relationship", "source_head", stream=stream)
    table = widened(relationship)
    if table.ndim != 2:
        raise RelationshipError(f"{text}: the relationship should be [C, C0], found {table.shape}")
    _check_rows(table, "the relationship")

    def init(key: Key, scene: Scene) -> Owned:
        del key
        head = source_head_copy(source_head, output_of(scene, stream, text).features, text)
        if head["kernel"].shape[1] != table.shape[1]:
            raise HeadError(
                f"{text}: the source head has {head['kernel'].shape[1]} categories, the relationship {table.shape[1]}"
            )
        return Owned(head, jnp.array(table))

    def apply(owned: Owned, scene: Scene) -> tuple[Array, Any, Metrics]:
        logits, batch = labelled(scene, stream, text)
        if logits.shape[-1] != len(table):
            raise LabelError(f"{text}: the model has {logits.shape[-1]} classes, the relationship {len(table)}")
        y, known = jnp.asarray(batch.y), owned.state
        logits = head_logits(owned.params, output_of(scene, stream, text).features)
        loss = weighted_mean(_losses(logits, y, known), batch.weight)
        return loss, known, {f"{prefix(stream)}co_tuning": loss}

    return Term(apply, init, text, streams=(stream,))


def _losses(logits: Array, y: Array, known: Array) -> Array:
    """The cross-entropies with labels as source categories, `[B]`; NaN for a class outside, as `cross_entropy`'s."""
    if y.ndim == 2:
        return cross_entropy_losses(logits, jnp.matmul(y.astype(known.dtype), known, precision="highest"))
    inside = (y >= 0) & (y < len(known))
    return jnp.where(inside, cross_entropy_losses(logits, known[jnp.where(inside, y, 0)]), jnp.nan)


def _check_rows(rows: Array, what: str) -> None:
    if not bool(jnp.all(rows >= 0)) or not bool(jnp.all(jnp.abs(jnp.sum(rows, axis=1) - 1) < 1e-3)):
        raise RelationshipError(f"{what}: every row should be a distribution, 0 or more and of sum 1")
