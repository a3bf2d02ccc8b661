"""The report of a transfer run: Markdown and HTML files for reading, plain text for the terminal."""

from tljax.evaluation.report.canvas import require_matplotlib
from tljax.evaluation.report.html import render_html
from tljax.evaluation.report.markdown import render_markdown
from tljax.evaluation.report.pair import render_pair, render_pair_text
from tljax.evaluation.report.results import ReportError
from tljax.evaluation.report.results import check as check_results
from tljax.evaluation.report.text import render_text
from tljax.evaluation.report.write import write_report

__all__ = [
    "ReportError",
    "check_results",
    "render_html",
    "render_markdown",
    "render_pair",
    "render_pair_text",
    "render_text",
    "require_matplotlib",
    "write_report",
]
