"""Weights that change in the course of training: functions of the step, without a counter of their own."""

import jax
import jax.numpy as jnp
import numpy as np

from tljax.objectives.describe import describe
from tljax.objectives.term import Schedule
from tljax.types import Array, TljaxError


class ScheduleError(TljaxError):
    """A schedule whose numbers make none."""


def warm_up(*, high: float = 1.0, low: float = 0.0, alpha: float = 1.0, steps: int = 1000) -> Schedule:
    """The S-shaped rise from `low` at step 0 towards `high`, usual for gradient reversal.

    ``low + (high - low) (2 / (1 + exp(-alpha t / steps)) - 1)``. The defaults rise by the number of the step,
    however long the run is: 0.46 at step 1,000 and 0.91 at 3,000. The paper's rise over a whole run is
    ``warm_up(alpha=10, steps=total)``. It may multiply a term as well: ``warm_up(steps=100) * mcc()``.

    Raises:
        ScheduleError: `steps` or `alpha` is not above 0.

    Reference: Ganin et al. 2016, arXiv:1505.07818, section 5.2.2.

    >>> rise = warm_up(alpha=10, steps=500)
    >>> print(rise.__name__, rise(0), rise(50).round(4), rise(500).round(4))
    warm_up(alpha=10, steps=500) 0.0 0.4621 0.9999
    """
    if not (steps > 0 and (isinstance(alpha, jax.core.Tracer) or alpha > 0)):
        raise ScheduleError(f"warm_up needs steps > 0 and alpha > 0, found steps={steps}, alpha={alpha}")

    def rise(step: Array) -> Array:
        t = jnp.asarray(step, float)
        # The same as the formula above, without its difference of two numbers near 1.
        return low + (high - low) * jnp.tanh(t * (0.5 * alpha / steps))

    # A factor or an option that is a schedule prints by its name.
    rise.__name__ = describe(warm_up, high=high, low=low, alpha=alpha, steps=steps)
    return rise


def ramp_up(*, high: float = 1.0, steps: int = 4000) -> Schedule:
    """The rise from nearly 0 at step 0 to `high` at step `steps` and after, usual for consistency losses.

    ``high exp(-5 (1 - t / steps)^2)``, t at most `steps`.

    Raises:
        ScheduleError: `steps` is not above 0.

    Reference: Laine and Aila 2017, arXiv:1610.02242, section 2.1; Tarvainen and Valpola 2017, arXiv:1703.01780.

    >>> rise = ramp_up(steps=100)
    >>> print(rise(0).round(4), rise(50).round(4), rise(100), rise(200))
    0.0067 0.2865 1.0 1.0
    """
    if not steps > 0:
        raise ScheduleError(f"ramp_up needs steps > 0, found steps={steps}")

    def rise(step: Array) -> Array:
        left = 1 - jnp.minimum(jnp.asarray(step, float) / steps, 1)
        return high * jnp.exp(-5 * left * left)

    rise.__name__ = describe(ramp_up, high=high, steps=steps)
    return rise


def schedule_of(given: float | Schedule | None, default: Schedule, term: str) -> Schedule:
    """What the option `strength` of `term` says: a schedule, a number that stays, or None for `default`.

    Raises:
        ScheduleError: it is neither, or a number below 0, which would turn the game round.

    >>> print(schedule_of(0.5, warm_up(), "dann()")(jnp.int32(3)))
    0.5
    """
    if given is None:
        return default
    if callable(given):
        return given
    if isinstance(given, bool) or np.ndim(given) or not isinstance(given, int | float | np.number | np.ndarray | Array):
        raise ScheduleError(f"{term}: strength is a number or a schedule, as warm_up(steps=200); found {given!r:.60}")
    if not isinstance(given, jax.core.Tracer) and not 0 <= given < np.inf:
        raise ScheduleError(f"{term}: strength should be finite, 0 or more; found {given}")
    return lambda step: jnp.asarray(given)
