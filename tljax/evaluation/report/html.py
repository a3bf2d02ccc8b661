"""The report as one HTML file that needs nothing beside it: style and pictures are inside, and nothing is fetched."""

import base64
import html
from collections.abc import Mapping, Sequence

from tljax.evaluation.report.blocks import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Picture,
    Preformatted,
    Table,
    Verdict,
    printable,
)
from tljax.evaluation.report.document import document, subtitle
from tljax.evaluation.report.drawing import draw
from tljax.evaluation.report.page import PAGE, STYLE
from tljax.evaluation.report.results import Results
from tljax.evaluation.report.theme import DARK, LIGHT

Pictures = Mapping[str, str]

_SIGNS = {"helped": "▲", "hurt": "▼", "undecided": "◆", "decided": "●", "untold": "○"}


def render_html(results: Results) -> str:
    """The report as one HTML page; raises `ReportError` for incomplete results or where matplotlib is missing."""
    return page(results, draw(results, LIGHT), draw(results, DARK))


def page(results: Results, light: Pictures, dark: Pictures) -> str:
    """The HTML page with these SVG pictures, by name, for light and dark surroundings."""
    return framed(str(results["title"]), subtitle(results), render_blocks(document(results), light, dark))


def render_blocks(blocks: Sequence[Block], light: Pictures, dark: Pictures) -> str:
    """Blocks as HTML, with these SVG pictures, by name."""
    return "\n".join(_render(block, light, dark) for block in blocks)


def framed(title: str, subtitle: str, body: str, *, wide: bool = False) -> str:
    """A whole page around `body`, which is HTML; `wide` leaves room for two columns."""
    kind = ' class="pair"' if wide else ""
    return PAGE.format(title=escape(title), subtitle=escape(subtitle), style=STYLE, body=body, kind=kind)


def escape(text: str) -> str:
    """`text` as HTML shows it: markup escaped, control characters blanked.

    >>> escape('<b>"cat" & dog</b>')
    '&lt;b&gt;&quot;cat&quot; &amp; dog&lt;/b&gt;'
    """
    return html.escape(printable(text), quote=True)


def _render(block: Block, light: Pictures, dark: Pictures) -> str:
    match block:
        case Verdict():
            return _verdict(block)
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text, small):
            return f'<p class="note">{escape(text)}</p>' if small else f"<p>{escape(text)}</p>"
        case Picture():
            return _picture(block, light[block.name], dark[block.name])
        case Preformatted(text):
            return f'<pre tabindex="0">{escape(text)}</pre>'
        case Table():
            return _table(block)


def _verdict(verdict: Verdict) -> str:
    lead, rest = verdict.parts
    known = verdict.outcome if verdict.outcome in _SIGNS else "undecided"
    tiles = "".join(f"<div><dd>{escape(n)}</dd><dt>{escape(what)}</dt></div>" for n, what in verdict.tiles)
    return (
        f'<section class="verdict {known}">\n<p><strong><span aria-hidden="true">{_SIGNS[known]}</span> '
        f"{escape(lead)}</strong> {escape(rest)}</p>\n<dl>{tiles}</dl>\n</section>"
    )


def _picture(picture: Picture, light: str, dark: str) -> str:
    return (
        "<figure>\n<picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img src="{_data(light)}" alt="{escape(picture.alt)}">'
        f"</picture>\n<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )


def _data(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_unbroken(escape(text))}</th>' for text in table.head)
    rows = "\n".join(f"<tr>{_row(row)}</tr>" for row in table.rows)
    kind = "numbers" if table.numeric else "words"
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _unbroken(heading: str) -> str:
    """The heading with its arrow bound to what stands before it."""
    for sign in ("↑", "↓"):
        heading = heading.replace(f" {sign}", f"&nbsp;{sign}")
    return heading


def _row(row: tuple[Cell, ...]) -> str:
    first, *others = row
    return f'<th scope="row">{_inside(first)}</th>' + "".join(f"<td{_look(c)}>{_inside(c)}</td>" for c in others)


def _look(cell: Cell) -> str:
    classes = [cell.tone] if cell.tone else []
    bar = "" if cell.bar is None else f' style="--share:{100 * min(max(cell.bar, 0.0), 1.0):.1f}%"'
    classes += ["bar"] if bar else []
    return (f' class="{" ".join(classes)}"' if classes else "") + bar


def _inside(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.strong else escape(cell.text)
    return f"{text} <small>{escape(cell.note)}</small>" if cell.note else text
