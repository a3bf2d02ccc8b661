"""What describes a run, and in what two descriptions differ."""

import json
import pathlib
from typing import Any


def described_in(folder: pathlib.Path) -> Any:
    """What describes the run whose checkpoints are in `folder`; None where there is none, or it cannot be read.

    >>> described_in(pathlib.Path("no such folder"))
    """
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return None


def differences(earlier: Any, now: Any, name: str = "") -> list[str]:
    """Readable lines for every place where two JSON values differ.

    >>> differences({"lr": 0.1, "model": {"width": 8}}, {"lr": 0.1, "model": {"width": 16}})
    ['model.width: was 8, now 16']
    """
    if isinstance(earlier, dict) and isinstance(now, dict):
        keys = sorted(earlier.keys() | now.keys())
        inner = [differences(earlier.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [line for lines in inner for line in lines]
    return [] if earlier == now else [f"{name}: was {json.dumps(earlier)}, now {json.dumps(now)}"]
