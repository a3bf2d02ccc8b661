"""All pictures of a report, by name."""

from tljax.evaluation.report.canvas import drawing, require_matplotlib, to_svg
from tljax.evaluation.report.document import pictures
from tljax.evaluation.report.embedding import features_figure
from tljax.evaluation.report.matrices import confusion_figure
from tljax.evaluation.report.pictures import accuracy_figure, curves_figure, gain_figure
from tljax.evaluation.report.results import Results
from tljax.evaluation.report.retained import wise_figure
from tljax.evaluation.report.standings import standings_figure
from tljax.evaluation.report.theme import Theme
from tljax.evaluation.report.tradeoff import tradeoff_figure

_FIGURES = {
    "gain": gain_figure,
    "accuracy": accuracy_figure,
    "curves": curves_figure,
    "confusion": confusion_figure,
    "tradeoff": tradeoff_figure,
    "standings": standings_figure,
    "wise": wise_figure,
    "features": features_figure,
}


def draw(results: Results, theme: Theme) -> dict[str, str]:
    """The SVG text of every picture; raises `ReportError` where matplotlib is missing."""
    require_matplotlib()
    drawn = {}
    for picture in pictures(results):
        with drawing(theme):
            drawn[picture.name] = to_svg(_FIGURES[picture.name](results, theme))
    return drawn
