"""Several processes that work on one run: how one joins, what the first does for all, what they tell each other.

Every process runs the same program, each on its own devices, and JAX joins the devices to one mesh. What a file system
or a clock decides is decided by the first process; the others are told. A process that stops telling would leave the
others waiting in a collective: so an error that one of them meets is told, too, and raised by all.
"""

import contextvars
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from tljax.types import TljaxError

HEARTBEAT_SECONDS = 60
"""A process that was not heard of for so long is taken for dead, and JAX ends the others."""
LEAVING_SECONDS = 60
"""How long a process that is done, or failed, waits for the others to end; then JAX ends them."""
JOINING_SECONDS = 300
"""How long processes wait for each other at the start: schedulers start them one after the other."""

_T = TypeVar("_T")
_alone = contextvars.ContextVar("alone", default=False)


class ProcessError(TljaxError):
    """Processes cannot work together as asked, or another process of the run has failed."""


def join(
    coordinator: str | None = None,
    count: int | None = None,
    number: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    joining_seconds: int = JOINING_SECONDS,
) -> None:
    """Make this process one of several, before JAX has touched a device: `jax.distributed.initialize`, checked.

    Args:
      coordinator: ``HOST:PORT`` of process 0, which all others can reach.
      count, number: how many processes there are, and which this is, from 0 on. All three, or none: then JAX asks
        Slurm, Open MPI, Kubernetes or the TPU.
      heartbeat_seconds: after how long a silent process is taken for dead; JAX then ends all others.
      joining_seconds: how long to wait for the others now.

    Raises:
      ProcessError: arguments that do not fit together, or no cluster found. Where the others do not come in time, JAX
        ends the process.

    >>> join("localhost:1234", 2)
    Traceback (most recent call last):
    tljax.processes.ProcessError: a process of several needs all of coordinator, count and number; number is missing
    >>> join("localhost", 2, 0)
    Traceback (most recent call last):
    tljax.processes.ProcessError: the coordinator should be HOST:PORT, as 10.0.0.1:1234; found 'localhost'
    >>> join("localhost:1234", 2, 2)
    Traceback (most recent call last):
    tljax.processes.ProcessError: 2 processes have the numbers 0 to 1; found 2
    """
    given = {"coordinator": coordinator, "count": count, "number": number}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise ProcessError(
            f"a process of several needs all of coordinator, count and number; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing"
        )
    if coordinator is not None and count is not None and number is not None:
        _check_place(coordinator, count, number)
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which a run notes itself
    try:
        jax.distributed.initialize(
            coordinator, count, number, initialization_timeout=joining_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds, shutdown_timeout_seconds=LEAVING_SECONDS,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        raise ProcessError(_why(error, coordinator)) from error


def _check_place(coordinator: str, count: int, number: int) -> None:
    if not re.fullmatch(r".+:\d{1,5}", coordinator) or not 0 < int(coordinator.rsplit(":", 1)[1]) < 2**16:
        raise ProcessError(f"the coordinator should be HOST:PORT, as 10.0.0.1:1234; found {coordinator!r}")
    if count < 1:
        raise ProcessError(f"there must be one process or more; found {count}")
    if not 0 <= number < count:
        raise ProcessError(f"{count} processes have the numbers 0 to {count - 1}; found {number}")


def _why(error: Exception, coordinator: str | None) -> str:
    said = str(error).strip().split("\n")[0]
    if coordinator is None and "must be defined" in said.replace("should", "must"):
        return (
            "no cluster was found: neither Slurm, Open MPI, Kubernetes nor a TPU says which process this is; give "
            "the coordinator, the number of processes and the number of this one"
        )
    return f"the processes did not come together: {said}"


def several() -> bool:
    """Whether this process works with others; asks JAX, which by then must have been told.

    >>> several()
    False
    """
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes.

    >>> is_first()
    True
    """
    return jax.process_index() == 0


def from_first(make: Callable[[], _T]) -> _T:
    """What `make()` gives in the first process, a JSON value, in all of them. They wait for each other.

    Called by all processes alike. Within `make`, which runs in one, nothing waits for others.

    Raises:
      ProcessError: `make` raised; in the first process its own error.

    >>> from_first(lambda: {"step": 3})
    {'step': 3}
    """
    if not several() or _alone.get():
        return make()
    value, error = None, None
    if is_first():
        value, error = _tried(make)
    said = json.loads(_sent(json.dumps({"value": value} if error is None else {"error": _text(error)})))
    if error is not None:
        raise error
    if "error" in said:
        raise ProcessError(f"process 0 failed: {said['error']}")
    return said["value"]


def by_first(action: Callable[[], Any]) -> None:
    """Let the first process do something, such as writing a file, while the others wait; raises as `from_first` does.

    >>> by_first(lambda: print("done once"))
    done once
    """
    from_first(lambda: (action(), None)[1])


def together(make: Callable[[], _T]) -> _T:
    """What `make()` gives in each process; but where it fails in one, it fails in all.

    Raises:
      ProcessError: it raised in another process; where it raised, its own error.

    >>> together(lambda: 3)
    3
    """
    if not several() or _alone.get():
        return make()
    value, error = _tried(make)
    raise_all(gathered([error is not None])[:, 0], error)
    return value


def gathered(values: Sequence[int]) -> np.ndarray:
    """The small whole numbers of every process, int32 `[P, n]`; a collective.

    >>> gathered([3, True]).tolist()
    [[3, 1]]
    """
    own = np.asarray(values, np.int32)
    if not several():
        return own[None]
    return np.asarray(multihost_utils.process_allgather(own)).reshape(-1, len(own))


def raise_all(failed: np.ndarray, error: Exception | None) -> None:
    """Raise the own `error`, or a `ProcessError` where another process has `failed`; all know of all by `gathered`.

    >>> raise_all(np.array([False]), None)
    """
    if not failed.any():
        return
    source = int(np.argmax(failed))
    told = _sent("" if error is None else _text(error), source)
    if error is not None:
        raise error
    raise ProcessError(f"process {source} failed: {told}")


def fetched(tree: Any) -> Any:
    """`tree` with NumPy arrays for leaves, whole in every process, wherever their parts are; a collective.

    >>> fetched({"a": jax.numpy.ones(2)})
    {'a': array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(_fetched, tree)


def at_hand(tree: Any) -> Any:
    """`tree` as this process can use it without the others: as it is where there are none, else `fetched`.

    >>> at_hand({"a": 1})
    {'a': 1}
    """
    return fetched(tree) if several() else tree


def _fetched(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _tried(make: Callable[[], _T]) -> tuple[Any, Exception | None]:
    token = _alone.set(True)
    try:
        return make(), None
    except Exception as error:
        return None, error
    finally:
        _alone.reset(token)


def _sent(text: str, source: int = 0) -> str:
    """The text of the process `source`, in all of them."""
    own = np.frombuffer(text.encode(), np.uint8)
    mine = jax.process_index() == source
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(own)), is_source=mine))
    room = np.zeros(1 << max(8, size.bit_length()), np.int32)  # few sizes: each is a program of its own
    if mine:
        room[:size] = own
    return (
        np.asarray(multihost_utils.broadcast_one_to_all(room, is_source=mine))[:size]
        .astype(np.uint8)
        .tobytes()
        .decode()
    )


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, TljaxError) else f"{type(error).__name__}: {error}"
