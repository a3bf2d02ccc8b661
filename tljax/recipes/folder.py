"""The run folder of a recipe: one folder, one configuration."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tljax.checkpoints.run import RunError, differences, make_folder, write_atomically


def claim_folder(folder: pathlib.Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Make `folder` this run's own, or recognise it as such.

    Raises:
      RunError: it holds a run of another configuration (the differences are listed), a run at all with `resume=False`,
        or cannot be written to.
    """
    make_folder(folder)
    file = folder / "config.json"
    if not file.exists():
        write_atomically(file, json.dumps(config, indent=1))
        return
    if not resume:
        raise RunError(
            f"{folder} holds a run already; choose another --run-dir, or leave out --no-resume to continue it"
        )
    try:
        earlier = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{file} should hold a run's settings but cannot be read: {error}") from error
    lines = differences(earlier, dict(config))
    if lines:
        listed = "\n  ".join(lines)
        raise RunError(f"{folder} holds a run of other settings:\n  {listed}\nChoose another --run-dir for this one.")
