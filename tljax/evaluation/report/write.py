"""The report as files."""

import pathlib

from tljax.checkpoints.run import make_folder, write_atomically
from tljax.evaluation.report.drawing import draw
from tljax.evaluation.report.html import page
from tljax.evaluation.report.markdown import render_markdown
from tljax.evaluation.report.results import Results
from tljax.evaluation.report.theme import DARK, LIGHT


def write_report(results: Results, folder: str | pathlib.Path) -> dict[str, pathlib.Path]:
    """Write `report.html`, `report.md` and its `pictures/*.svg` to `folder`; the paths by name.

    The names are `html`, `markdown`, and those of the pictures: `gain`, `accuracy`, `curves`, `confusion`, as far as
    the results give rise to them. The same results give the same bytes. Each file is replaced whole or not at all, and
    none before everything is rendered. Raises `ReportError` for incomplete results or where matplotlib is missing,
    `RunError` where the folder cannot be written to.
    """
    folder = pathlib.Path(folder)
    light, dark = draw(results, LIGHT), draw(results, DARK)
    texts = {name: (folder / "pictures" / f"{name}.svg", svg) for name, svg in light.items()}
    texts["markdown"] = (folder / "report.md", render_markdown(results))
    texts["html"] = (folder / "report.html", page(results, light, dark))
    make_folder(folder / "pictures")
    for file, text in texts.values():
        write_atomically(file, text)
    return {name: file for name, (file, _) in texts.items()}
