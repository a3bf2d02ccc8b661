"""JAN: features and predictions whose joint distributions agree."""

from collections.abc import Sequence

import jax

from tljax.objectives.describe import describe
from tljax.objectives.kernels import Gaussians, check_kernels, linear_mmd, quadratic_mmd
from tljax.objectives.mean import widened
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array

FEATURES_AND_CLASSES = (Gaussians(), Gaussians((1.0,), variance=0.92**2))
"""Five kernels on the features, and one of width 0.92 on the class probabilities."""


def joint_mmd(
    sources: Sequence[Array],
    targets: Sequence[Array],
    *,
    kernels: Sequence[Gaussians] = FEATURES_AND_CLASSES,
    linear: bool = False,
) -> Array:
    """The squared maximum mean discrepancy of several layers jointly: the kernel is the product over them. A scalar.

    Args:
        sources: `[N, D_l]` for each layer l; for the default kernels the features and the class probabilities.
        targets: `[M, D_l]`, the same layers.
        kernels: one for each layer.
        linear: estimate from N quadruples of rows instead of all pairs; needs N = M. TLlib's constant is left out of
            both, as in `mk_mmd`.

    Raises:
        DomainError: shapes that do not fit, or fewer than two rows.

    Reference: Long et al. 2017, arXiv:1605.06636.

    >>> import jax.numpy as jnp
    >>> x, p = jnp.arange(4.0)[:, None], jnp.eye(4)
    >>> print(joint_mmd([x, p], [x, p]) < joint_mmd([x, p], [x, p[::-1]]))  # each alone is the same in both
    True
    """
    return (linear_mmd if linear else quadratic_mmd)(sources, targets, kernels)


def jan(
    *,
    kernels: Sequence[Gaussians] = FEATURES_AND_CLASSES,
    linear: bool = False,
    source: str = "source",
    target: str = "target",
) -> Term:
    """JAN: features and class probabilities are jointly distributed alike in `source` and `target` (`joint_mmd`).

    The domains go through the model as one batch. Logs `jan`, an estimate that may be below 0.

    Raises:
        DomainError: a kernel that is none.

    Reference: Long et al. 2017, arXiv:1605.06636.

    >>> print(jan(), jan(linear=True))
    jan() jan(linear=True)
    """
    kernels = tuple(kernels)
    check_kernels("jan", *kernels)
    text = describe(jan, kernels=kernels, linear=linear, source=source, target=target)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        outputs = [output_of(scene, stream, text) for stream in (source, target)]
        s, t = ((output.features, jax.nn.softmax(widened(output.logits))) for output in outputs)
        loss = joint_mmd(s, t, kernels=kernels, linear=linear)
        return loss, {"jan": loss}

    return stateless(value, text, source, target, joint=(source, target))
