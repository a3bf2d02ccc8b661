"""DAN: features whose means agree under many kernels."""

from tljax.objectives.describe import describe
from tljax.objectives.kernels import Gaussians, check_kernels, linear_mmd, quadratic_mmd
from tljax.objectives.stream import output_of
from tljax.objectives.term import Metrics, Scene, Term, stateless
from tljax.types import Array

FIVE = Gaussians()


def mk_mmd(source: Array, target: Array, *, kernel: Gaussians = FIVE, linear: bool = False) -> Array:
    """The squared maximum mean discrepancy of two batches under a sum of Gaussian kernels, a scalar.

    At a given bandwidth both estimates are unbiased: where the domains are the same their mean is 0, and values below 0
    are usual. TLlib adds the constant ``2 / (B - 1)``, meant to lift them above 0; it has no gradient, and is left out.

    Args:
        source: features `[N, D]`.
        target: features `[M, D]`.
        kernel: the kernels summed. The default: five, around the mean squared distance in the batch.
        linear: estimate from N quadruples of rows, in O(N D), instead of all pairs; needs N = M.

    Raises:
        DomainError: shapes that do not fit, or fewer than two rows.

    Reference: Long et al. 2015, arXiv:1502.02791; Gretton et al. 2012, JMLR 13.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(8.0)[:, None]
    >>> print(mk_mmd(x, x + 4).round(4), mk_mmd(x, x + 4, linear=True).round(4))
    1.2858 4.0896
    """
    return (linear_mmd if linear else quadratic_mmd)([source], [target], [kernel])


def dan(*, kernel: Gaussians = FIVE, linear: bool = True, source: str = "source", target: str = "target") -> Term:
    """DAN: the features of `source` and `target` have the same mean under many kernels (`mk_mmd`).

    The domains go through the model one by one. As published, the estimate is the linear one; ``linear=False`` costs
    little at usual batch sizes and is less noisy. Logs `dan`, an estimate that may be below 0.

    Raises:
        DomainError: a kernel that is none.

    Reference: Long et al. 2015, arXiv:1502.02791.

    >>> print(dan(), dan(linear=False))
    dan() dan(linear=False)
    """
    check_kernels("dan", kernel)
    text = describe(dan, kernel=kernel, linear=linear, source=source, target=target)

    def value(scene: Scene) -> tuple[Array, Metrics]:
        s, t = (output_of(scene, stream, text).features for stream in (source, target))
        loss = mk_mmd(s, t, kernel=kernel, linear=linear)
        return loss, {"dan": loss}

    return stateless(value, text, source, target)
