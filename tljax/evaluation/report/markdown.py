"""The report in Markdown (GitHub's, which has tables); pictures stand in files beside it."""

import re

from tljax.evaluation.report.blocks import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Picture,
    Preformatted,
    Table,
    Verdict,
    one_line,
    printable,
)
from tljax.evaluation.report.document import document, subtitle
from tljax.evaluation.report.results import Results

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
_AT_START = re.compile(r"^(\d*)([.)](?=\s|$)|[+-](?=\s|$)|#|[=-]+$)")
_SIGNS = {"helped": "🟩", "hurt": "🟥", "undecided": "🟨", "decided": "🟩", "untold": "⬜"}


def render_markdown(results: Results) -> str:
    """The report as Markdown that shows the pictures `pictures/*.svg` beside it; raises `ReportError`."""
    parts = [f"# {escape(results['title'])}", escape(subtitle(results)), *map(_render, document(results))]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""`text` in one line, so that Markdown shows it as it is.

    >>> print(escape("a_b <c>"))
    a\_b \<c\>
    >>> print(escape("1. first"), escape("# no title"))
    1\. first \# no title
    """
    return _AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", one_line(text)))


def _render(block: Block) -> str:
    match block:
        case Verdict(outcome, _, tiles):
            lead, rest = block.parts
            numbers = " · ".join(f"**{escape(number)}** {escape(what)}" for number, what in tiles)
            return f"> {_SIGNS.get(outcome, '')} **{escape(lead)}** {escape(rest)}\n>\n> {numbers}"
        case Heading(text):
            return f"## {escape(text)}"
        case Paragraph(text):
            return escape(text)
        case Picture(name, alt, caption):
            return f"![{escape(alt)}](pictures/{name}.svg)\n\n*{escape(caption)}*"
        case Preformatted(text):
            return fenced(printable(text))
        case Table():
            return _table(block)


def fenced(text: str) -> str:
    """`text` as a code block, whose fence is longer than any run of backticks in it."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, 1 + max(runs, default=0))
    return f"{fence}text\n{text}\n{fence}"


def _table(table: Table) -> str:
    align = ":--" + (" | --:" if table.numeric else " | :--") * (len(table.head) - 1)
    lines = [" | ".join(map(escape, table.head)), align]
    lines += [" | ".join(map(_cell, row)) for row in table.rows]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"{f'**{text}**' if cell.strong and text else text} {escape(cell.note)}".strip()
