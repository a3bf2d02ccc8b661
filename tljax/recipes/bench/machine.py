"""Where and with what a measurement was made, so that it can be judged and repeated."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import time
from typing import Any

import jax

from tljax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_BUSY = 0.3
"""A load average above this share of the cores, before anything is measured, is told."""


def machine() -> dict[str, Any]:
    """Device, versions, date, command and flags, as JSON values.

    >>> sorted(machine())
    ['command', 'date', 'flags', 'machine', 'time', 'versions']
    """
    devices, now = jax.devices(), datetime.datetime.now(datetime.UTC)
    return {
        "command": _command(),
        "date": now.date().isoformat(),
        "time": now.time().isoformat(timespec="seconds"),
        "machine": {
            "device": devices[0].device_kind,
            "platform": devices[0].platform,
            "devices": len(devices),
            "runtime": devices[0].client.platform_version.splitlines()[0],
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": platform.platform(),
        },
        "versions": {
            "tljax": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "flags": _flags(),
    }


def _command() -> str:
    name, *rest = sys.argv or [""]
    script = "tljax" if name.endswith("__main__.py") else pathlib.PurePath(name).name
    return " ".join([script, *map(shlex.quote, rest)])


def _flags() -> dict[str, str]:
    """What changes how programs are compiled and run: variables of the environment, and JAX's own precision."""
    found = {name: value for name, value in sorted(os.environ.items()) if name in FLAGS or name.startswith("JAX_")}
    precision = jax.config.values["jax_default_matmul_precision"]
    return found | ({} if precision is None else {"jax_default_matmul_precision": str(precision)})


def _processor() -> str:
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def load() -> float | None:
    """Processes that ran or waited in the last minute, on average; None where the system does not tell.

    >>> load() is None or load() >= 0
    True
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def is_busy(before: float | None, cores: int) -> bool:
    """Whether so large a load, before anything was measured, disturbs what comes.

    >>> is_busy(3.0, 2), is_busy(0.0, 2), is_busy(None, 2)
    (True, False, False)
    """
    return before is not None and before > _BUSY * cores


def process_age() -> float | None:
    """Seconds since this process began; None where the system does not tell.

    >>> age = process_age()
    >>> age is None or age > 0
    True
    """
    file = pathlib.Path("/proc/self/stat")
    if not file.exists() or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    started = int(file.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
