"""What every JSON in `benchmarks/results/` says of itself: the command that made it, the day, machine and versions.

A script writes ``facts() | {...}``; `tests/test_benchmark_numbers.py` asks `missing` about every file.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETTINGS = ("JAX_PLATFORMS", "XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GLIBC_TUNABLES")
"""Variables of the environment that change what is measured."""


def facts(*packages: str, command: str | None = None) -> dict[str, Any]:
    """`command`, `date`, `machine` and `versions` of what runs now.

    `packages`: those beside jax, flax, optax and numpy whose versions matter. `command`: other than the script with its
    arguments.
    """
    import jax

    import tljax

    return {
        "command": command or _command(),
        "date": datetime.date.today().isoformat(),
        "machine": {
            "device": jax.devices()[0].device_kind, "devices": jax.device_count(), "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        },
        "versions": {"python": platform.python_version(), "tljax": tljax.__version__}
        | {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy", *packages)},
    }  # fmt: skip


def data_folder(name: str, *files: str) -> pathlib.Path:
    """The folder `name` in that of the data, TLJAX_DATA_DIR; ends the script where `files` are not there."""
    where = os.environ.get("TLJAX_DATA_DIR")
    if where is None:
        raise SystemExit(f"set TLJAX_DATA_DIR to the folder of the data, in which there are {_in(name, files)}")
    absent = [file for file in files if not (pathlib.Path(where) / name / file).exists()]
    if absent:
        raise SystemExit(f"TLJAX_DATA_DIR is {where!r}, in which there are no {_in(name, absent)}")
    return pathlib.Path(where) / name


def _in(folder: str, files: Sequence[str]) -> str:
    return ", ".join(f"{folder}/{file}" for file in files)


def add_output(parser: argparse.ArgumentParser, usual: pathlib.Path) -> None:
    """The option `--output`."""
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="FILE",
        help=f"where the JSON goes; {usual.relative_to(ROOT)}, which the pages quote, where the settings are the usual",
    )  # fmt: skip


def output_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace, usual: pathlib.Path, *names: str
) -> pathlib.Path:
    """Where the JSON goes. A trial, in which options of `names` are not the usual, must say so itself: it is not to
    take the place of published numbers."""
    if options.output is not None:
        return options.output
    for name in names:
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"with another --{name} say where the JSON goes: --output FILE")
    return usual


def missing(found: Mapping[str, Any]) -> list[str]:
    """What such a JSON should say of itself, and does not.

    >>> missing({"command": "python a.py", "date": "2026-11-28", "machine": {"device": "cpu"}, "versions": {}})
    ['versions.jax']
    """
    machine, versions = found.get("machine"), found.get("versions")
    there = {
        "command": isinstance(found.get("command"), str),
        "date": bool(re.fullmatch(r"20\d\d-\d\d-\d\d", str(found.get("date")))),
        "machine.device": isinstance(machine, Mapping) and bool(machine.get("device")),
        "versions.jax": isinstance(versions, Mapping) and bool(versions.get("jax")),
    }
    return [name for name, yes in there.items() if not yes]


def _command() -> str:
    script = pathlib.Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    set_ = [f"{key}={shlex.quote(os.environ[key])}" for key in SETTINGS if os.environ.get(key)]
    return " ".join([*set_, "python", name, *map(shlex.quote, sys.argv[1:])])


def _processor() -> str:
    """The name of the CPU where Linux tells it."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
