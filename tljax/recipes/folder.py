"""The run folder of a recipe: one folder, one configuration."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tljax.checkpoints.run import RunError, differences, make_folder, write_atomically
from tljax.processes import by_first, from_first
from tljax.recipes.contents import contents

FILES = "files.json"
"""What was in the files that the settings name, when the run began."""


def claim_folder(
    folder: pathlib.Path, config: Mapping[str, Any], *, resume: bool, grows: Sequence[str] = ()
) -> bool:  # fmt: skip
    """Make `folder` this run's own, or recognise it as such; whether it holds a smaller run, which is to grow.

    A folder in which nothing has been computed yet, because the data were wrong at first, has nothing to lose. Where
    only numbers that `grows` names are larger than those of the run there, it goes on from what is there; that run's
    results and settings stay until the new results take their place.

    Raises:
      RunError: it holds a run of another configuration (the differences are listed) or of files that have changed
        since, a run at all with `resume=False`, or cannot be written to.
    """
    make_folder(folder)
    file, files = folder / "config.json", contents(config, without=folder)
    fresh = not file.exists() and not (folder / "results.json").exists()
    if fresh or not _begun(folder):
        write_atomically(folder / FILES, json.dumps(files, indent=1))
        write_atomically(file, json.dumps(config, indent=1))
        return False
    if not resume:
        raise RunError(
            f"{folder} holds a run already; choose another --run-dir, or leave out --no-resume to continue it"
        )
    earlier = read_object(file)
    if earlier is None:
        raise RunError(
            f"{file}, which tells the settings of the run there, is missing or damaged; choose another --run-dir, or "
            "delete it and results.json, and what checkpoints there are of the settings given now will be continued"
        )
    more = [name for name in grows if _number(config.get(name)) > _number(earlier.get(name))]
    lines = differences(earlier, {**config, **{name: earlier[name] for name in more}})
    if lines:
        listed = "\n  ".join(lines)
        raise RunError(f"{folder} holds a run of other settings:\n  {listed}\nChoose another --run-dir for this one.")
    before = read_object(folder / FILES) or {}
    changed = [name for name, digest in files.items() if before.get(name, digest) != digest]
    if changed:
        raise RunError(
            f"{folder} holds a run from before {', '.join(map(repr, changed))} changed; choose another --run-dir for a "
            "new one"
        )
    return bool(more)


def _number(value: Any) -> float:
    return value if isinstance(value, int) else float("nan")


def results_of(settings: Any, compute: Callable[[], dict[str, Any]], *, say: Callable[[str], None]) -> dict[str, Any]:
    """The results in the run folder of `settings`: those of a run that was complete, else what `compute` finds.

    Several processes work them out together; the first writes, and all return what it has.

    `settings` have a `folder`, `described()` and `resume`; `say` is called with what a person should know.

    Raises:
      RunError: as `claim_folder`.
    """
    grows = getattr(settings, "GROWS", ())
    folder, config = settings.folder, settings.described()
    smaller = from_first(lambda: claim_folder(folder, config, resume=settings.resume, grows=grows))
    file, found = folder / "results.json", from_first(lambda: read_results(folder))
    if found is not None and not smaller:
        say(f"{folder} holds this run complete; what is written from its results is written anew")
        return found
    if found is None and from_first(file.exists):
        say(f"{file} is damaged; working it out again from what else is there")
    computed = compute()
    by_first(lambda: write_atomically(file, json.dumps(computed, indent=1)))
    if smaller:
        by_first(lambda: write_atomically(folder / "config.json", json.dumps(config, indent=1)))
    return from_first(lambda: computed)


def read_results(folder: pathlib.Path) -> dict[str, Any] | None:
    """The results of the run in `folder`; None where it is not complete, or their file is damaged."""
    found = read_object(folder / "results.json")
    return found if found and "summary" in found else None


def _begun(folder: pathlib.Path) -> bool:
    """Whether any file but the settings is there."""
    return any(entry.is_file() and entry.name not in ("config.json", FILES) for entry in folder.rglob("*"))


def read_object(file: pathlib.Path) -> dict[str, Any] | None:
    """The JSON object in `file`; None where there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
