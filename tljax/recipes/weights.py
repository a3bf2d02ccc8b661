"""Looking into weight files and converting them: what `tljax inspect`, `tljax convert` and `tljax models` do."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from tljax.checkpoints import CheckpointError, open_weights, read_weights, save_weights
from tljax.models import CATALOG, ModelError
from tljax.models.recognition import recognise


def inspect_file(path: str) -> str:
    """What is in a weight file, as text: the format, what it looks like, parameters by group, and every leaf.

    Raises `CheckpointError` when it cannot be read.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"head": {"bias": np.zeros(3, np.float32)}}, f"{folder}/a.npz")
    ...     print(inspect_file(f"{folder}/a.npz").splitlines()[-1])
    head/bias  3  float32
    """
    file = open_weights(path)
    try:
        known = recognise(file, {}).how
    except ModelError:
        known = "no architecture that tljax knows by its names"
    rows = [(name, "x".join(map(str, spec.shape)) or "scalar", str(spec.dtype)) for name, spec in file.specs.items()]
    widths = [max([len(row[i]) for row in rows], default=0) for i in range(2)]
    leaves = [f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype}" for name, shape, dtype in rows]
    return "\n".join([str(file.report), f"looks like  {known}", "", *_groups(file.specs), "", *leaves])


def convert_file(source: str, target: str, *, force: bool = False) -> str:
    """Write the weights of `source` in the format that the suffix of `target` names; returns what was done.

    Values stay as they are, and so do names, but that formats which nest by nature (msgpack, orbax) nest them.

    Raises `CheckpointError` when a file cannot be read or written, or when `target` exists and `force` is not set.
    """
    if pathlib.Path(target).exists() and not force:
        raise CheckpointError(f"{target} exists; give --force to replace it, or another name")
    weights = read_weights(source)
    separator = "/" if any("/" in name for name in weights.leaves) else "."
    save_weights(weights.tree, target, separator=separator)
    return f"{weights.report}\nwritten to {target}"


def models_table() -> str:
    """The catalogue as a table: name, parameters, summary."""
    width = max(map(len, CATALOG))
    lines = [f"{'model':<{width}}  {'parameters':>12}  "]
    for name, entry in CATALOG.items():
        count = f"{entry.published:,}" if entry.published else ""
        lines.append(f"{name:<{width}}  {count:>12}  {entry.summary}")
    return "\n".join(lines)


def _groups(specs: Mapping[str, jax.ShapeDtypeStruct]) -> list[str]:
    """Parameters by the first one or two parts of the names."""
    sizes: dict[str, list[Any]] = {}
    for name, spec in specs.items():
        parts = name.replace("/", ".").split(".")
        row = sizes.setdefault(".".join(parts[: min(2, len(parts) - 1)]) or name, [0, 0])
        row[0] += 1
        row[1] += math.prod(spec.shape)
    width = max(map(len, sizes), default=5)
    return [f"{'group':<{width}}  leaves  parameters"] + [
        f"{g:<{width}}  {n:>6}  {s:>10,}" for g, (n, s) in sizes.items()
    ]
