"""`tljax report`: the report of a finished run written anew, or of two side by side."""

import dataclasses
import os
import pathlib

from tljax.checkpoints.run import RunError, differences, make_folder, write_atomically
from tljax.evaluation.report import render_html, render_pair, render_pair_text, write_report
from tljax.recipes.finished import names_of, read_finished, read_methods


@dataclasses.dataclass(frozen=True)
class Reported:
    """What was written, and the short of it."""

    text: str
    file: pathlib.Path

    def __str__(self) -> str:
        return f"{self.text}\nReport: {self.file}"


def run_report(
    folder: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
) -> Reported:
    """Write the report of the run in `folder`, or of two runs side by side, as one HTML file.

    Args:
      folder, other: run folders; of two, differences are those of `other` minus `folder`.
      output: the file; by default `report.html` in the run folder (with report.md and the pictures), and for two runs
        `report-A-B.html` in the current folder.

    Raises:
      RunError: a folder that holds no complete run, or a file that cannot be written.
      ReportError: runs of different tasks, or matplotlib is missing.

    >>> run_report("nowhere")
    Traceback (most recent call last):
    tljax.checkpoints.run.RunError: there is no folder 'nowhere'; ...
    """
    if other is None:
        first = read_finished(folder)
        said = (first.results.get("verdict") or {}).get("sentence")
        verdict = "\n\n".join(filter(None, (str(first.results["title"]), said))) + "\n"
        if output is None:
            return Reported(verdict, write_report(first.told, first.folder)["html"])
        return Reported(verdict, _written(render_html(first.told), pathlib.Path(output)))
    runs = [read_methods(folder), read_methods(other)]
    names = names_of(runs)
    told = [(name, run.told) for name, run in zip(names, runs)]
    changed = differences(runs[0].config, runs[1].config) if all(run.config for run in runs) else []
    page = render_pair(told[0], told[1], changed)
    default = f"report-{'-'.join(name.replace(os.sep, '_') for name in names)}.html"
    return Reported(render_pair_text(told[0], told[1]), _written(page, pathlib.Path(output or default)))


def _written(page: str, file: pathlib.Path) -> pathlib.Path:
    if file.is_dir():
        raise RunError(f"{file} is a folder; --output names the HTML file to write")
    make_folder(file.parent)
    write_atomically(file, page)
    return file
