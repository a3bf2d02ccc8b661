"""A run whose loss or parameters are not finite: what failed, told by name."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.run import RunCheckpoints
from tljax.objectives import Term
from tljax.training.scaling import exhausted
from tljax.training.state import Run
from tljax.tree import named_leaves
from tljax.types import TljaxError


class NonFiniteError(TljaxError):
    """The loss, or a parameter, became NaN or infinite."""


def failure(
    run: Run, failed: int, losses: Sequence[str], objective: Term, checkpoints: RunCheckpoints | None
) -> NonFiniteError:
    """The error of a run that failed in step `failed`, and has perhaps made others since; `losses`: `Step.losses`.

    >>> from types import SimpleNamespace as Some
    >>> from tljax.objectives import cross_entropy
    >>> state = Some(trainable={"model": {"w": jnp.array([jnp.nan])}}, stats=None, scaling=None)
    >>> print(failure(Some(state=state, broken={"loss": False}), 7, ["loss"], cross_entropy(), None))
    parameters became NaN or infinite by step 7: model/w. Lower the learning rate, or clip gradients...
    """
    metrics = [name for name, broken in run.broken.items() if broken]
    learnt = {**run.state.trainable, "stats": run.state.stats}
    lost = [name for name in losses if name in metrics]
    if lost:
        of_terms = [name for name in run.broken if name not in losses and not _is_no_loss(name)]
        terms = [name for name in of_terms if run.broken[name]]
        which = f": of its terms {_listed(terms)}" if terms else ""
        if terms == of_terms and len(terms) > 1:
            which = f", in all its terms ({_listed(terms)}), as where the model's outputs are not finite"
        which = which or (f", and none of its terms: look at the factors of {objective}" if objective.parts else "")
        what = f"the {lost[0].replace('_', ' of the phase ', 1)} became NaN or infinite at step {failed}{which}"
    elif np.any(exhausted(run.state.scaling)):
        what = f"gradients in float16 are not finite at step {failed}, whatever the scale of the loss"
    else:
        broken = [name for name, leaf in named_leaves(learnt).items() if not jnp.all(jnp.isfinite(leaf))]
        leaves = [_owned_by(objective, name) for name in broken]
        what = f"parameters became NaN or infinite by step {failed}: {_listed(leaves + metrics)}"
        if any(name.startswith("grad_norm") for name in metrics):
            parts = ", ".join(str(part) for part in objective.parts or (objective,))
            what += f"; the loss was finite and its gradient not: look for a root, norm or quotient at 0 in {parts}"
    at = jnp.int32(failed - 1)  # the number of updates before that
    lost_schedules = [name for name, schedule in objective.schedules if not jnp.all(jnp.isfinite(schedule(at)))]
    if lost_schedules:
        what += f"; {_listed(lost_schedules)} is not finite there"
    kept = ""
    if checkpoints is not None:
        step = checkpoints.newest()
        found = f"Checkpoint {step} in {checkpoints.folder} is from before that."
        kept = " Nothing had been saved by then." if step is None else f" {found}"
    return NonFiniteError(
        f"{what}. Lower the learning rate, or clip gradients: fit(clip_norm=1.0), --clip-norm 1.{kept}"
    )


def _owned_by(objective: Term, name: str) -> str:
    """What `name`, of a leaf that learns, is called where a term owns it: that of the leaf, and the term."""
    first, *path = name.split("/")
    if first != "terms":
        return name
    while objective.parts and path:
        objective = objective.parts[int(path.pop(0))]
    return f"{'/'.join(path) or 'the parameter'} of {objective}"


def _is_no_loss(name: str) -> bool:
    """Whether a metric of a step is logged beside losses, as the accuracy, which is NaN where the logits are."""
    return name.startswith("grad_norm") or name.endswith("accuracy")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
