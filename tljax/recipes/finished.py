"""Runs that are complete, read from their folders."""

import dataclasses
import os
import pathlib
from typing import Any

from tljax.checkpoints.run import RunError
from tljax.evaluation.report import ReportError, check_results
from tljax.evaluation.report.results import is_adaptation, is_comparison, is_ranking, is_unlabelled
from tljax.recipes.folder import read_object
from tljax.recipes.timing import Timing


@dataclasses.dataclass(frozen=True)
class Finished:
    """A complete run."""

    folder: pathlib.Path
    results: dict[str, Any]
    """As they were recorded."""
    config: dict[str, Any]
    """Its settings; empty where they are not there any more."""

    @property
    def command(self) -> str:
        """The command that made it: `"transfer"`, `"finetune"`, `"adapt"` or `"rank"`."""
        if is_ranking(self.results):
            return "rank"
        if is_adaptation(self.results):
            return "adapt"
        return "finetune" if is_comparison(self.results) else "transfer"

    @property
    def told(self) -> dict[str, Any]:
        """The results with what was measured on the machine."""
        return self.results | {"timing": Timing(self.folder).read()}


def read_finished(folder: str | os.PathLike[str]) -> Finished:
    """The complete run in `folder`.

    Raises:
      RunError: there is no such folder, it is no run's, or the run is not complete, or damaged.

    >>> read_finished("nowhere")
    Traceback (most recent call last):
    tljax.checkpoints.run.RunError: there is no folder 'nowhere'; expected that of a run of ...
    """
    place = pathlib.Path(folder)
    expected = "expected that of a run of tljax transfer, finetune or adapt"
    if not place.is_dir():
        raise RunError(f"there is no folder {str(folder)!r}; {expected}")
    file, config = place / "results.json", read_object(place / "config.json")
    if not file.exists():
        if config is None:
            raise RunError(f"{place} is the folder of no run: it has neither results.json nor config.json; {expected}")
        raise RunError(f"the run in {place} is not complete: it has no results.json yet; the same command continues it")
    results = read_object(file)
    if results is None:
        raise RunError(f"{file} is damaged; the command that made it makes it anew from what lies beside it")
    try:
        check_results(results)
    except ReportError as error:
        raise RunError(f"{file} holds no results of tljax transfer, finetune or adapt: {error}") from error
    return Finished(place, results, config or {})


def read_methods(folder: str | os.PathLike[str], *, measured: bool = True) -> Finished:
    """The complete run of methods in `folder`: as `read_finished`, but of `tljax rank` there are none.

    `measured`: and of a run whose target has no labels neither, as nothing was measured of its methods.

    >>> read_methods("nowhere")
    Traceback (most recent call last):
    tljax.checkpoints.run.RunError: there is no folder 'nowhere'; ...
    """
    run = read_finished(folder)
    if run.command == "rank":
        raise RunError(
            f"{folder} holds a ranking, which has no methods to compare; tljax report {folder} shows it alone"
        )
    if measured and is_unlabelled(run.results):
        raise RunError(
            f"{folder} holds a run whose target has no labels, so no metrics were recorded; tljax evaluate {folder} "
            "--data with labelled examples measures them"
        )
    return run


def names_of(runs: list[Finished]) -> list[str]:
    """What to call the runs: the last part of each folder, or the whole where two would share it.

    >>> runs = [Finished(pathlib.Path(name), {}, {}) for name in ("a/x", "b/x", "b/y")]
    >>> names_of(runs)
    ['a/x', 'b/x', 'y']
    """
    short = [run.folder.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.folder) for name, run in zip(short, runs)]
