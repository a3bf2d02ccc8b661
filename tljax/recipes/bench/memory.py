"""How much memory a step takes: what the device's allocator saw, or what XLA says of the compiled program."""

from typing import Any, NamedTuple

import jax


class Used(NamedTuple):
    """What the allocator of the fullest device says, in bytes."""

    now: int
    peak: int
    """The most since the process began: nothing resets it."""


def used() -> Used | None:
    """What is used now; None on devices that keep no such numbers, as CPUs.

    >>> used() is None or used().peak >= used().now
    True
    """
    found = [device.memory_stats() for device in jax.local_devices()]
    if not all(found):
        return None
    stats: list[Any] = found
    return Used(max(s["bytes_in_use"] for s in stats), max(s["peak_bytes_in_use"] for s in stats))


def own_peak(before: Used | None, after: Used | None) -> int | None:
    """The most that was used between two looks, beyond what was there before; None where that cannot be told.

    It cannot where an earlier peak was higher, for that hides this one.

    >>> own_peak(Used(100, 150), Used(120, 400)), own_peak(Used(100, 500), Used(120, 500))
    (300, None)
    """
    if before is None or after is None or after.peak <= before.peak:
        return None
    return after.peak - before.now


def peak_memory(device: int | None, xla: int | None) -> dict[str, Any]:
    """The peak with its source, as JSON values: the device's where there is one, else XLA's.

    >>> peak_memory(None, 300)
    {'peak_bytes': 300, 'source': 'xla', 'xla_bytes': 300}
    >>> peak_memory(400, 300)
    {'peak_bytes': 400, 'source': 'device', 'xla_bytes': 300}
    """
    source = "device" if device is not None else None if xla is None else "xla"
    return {"peak_bytes": xla if device is None else device, "source": source, "xla_bytes": xla}
