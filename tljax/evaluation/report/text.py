"""The report in a terminal: one table with a column for each method, and the verdict last."""

import textwrap
from collections.abc import Sequence

from tljax.evaluation.report import adaptation, unlabelled
from tljax.evaluation.report.blocks import Cell, Table, Verdict, one_line
from tljax.evaluation.report.comparison import method_note, method_table
from tljax.evaluation.report.document import table_note
from tljax.evaluation.report.gains import gain_over_cell, negative_sentence, references
from tljax.evaluation.report.results import (
    Results,
    at_main_shots,
    check,
    is_adaptation,
    is_comparison,
    is_unlabelled,
    label,
    labels_noun,
    main_scale,
)
from tljax.evaluation.report.retained import forgetting_sentence
from tljax.evaluation.report.tables import GAIN, main_table, reported_metrics, shots_table
from tljax.evaluation.report.worth import area_row, worth_sentence

WIDTH = 100

Row = tuple[str, ...]


def render_text(results: Results) -> str:
    """The short table and the verdict as plain text, at most 100 columns wide; raises `ReportError`.

    >>> print(aligned([("", "scratch", "k-NN"), ("accuracy %", "89.7 ± 3.8", "92.6 ± 1.8")]))
                   scratch        k-NN
    accuracy %  89.7 ± 3.8  92.6 ± 1.8
    """
    check(results)
    verdict = results["verdict"]
    if is_unlabelled(results):
        return _unlabelled_text(results)
    if is_adaptation(results):
        return _adaptation_text(results)
    if is_comparison(results):
        table = method_table(results)
        rows, note = _plain(table), method_note(results)
    else:
        rows = [("", *map(label, results["methods"])), *_metric_rows(results), *_shot_rows(results)]
        note = table_note(results)
    more = (negative_sentence(results), worth_sentence(results), forgetting_sentence(results))
    parts = [
        _wrap(f"{results['title']}, {at_main_shots(results)}"),
        aligned(rows),
        _wrap(note.replace(" Best in bold.", "")),
        *([] if is_comparison(results) else map(_wrap, filter(None, more))),
        _wrap(" ".join(Verdict(verdict["outcome"], str(verdict["sentence"])).parts)),
    ]
    return "\n\n".join(parts) + "\n"


def _adaptation_text(results: Results) -> str:
    verdict, parts = results["verdict"], [_wrap(results["title"])]
    for table in (adaptation.method_table(results), adaptation.choice_table(results)):
        parts.append(aligned(_plain(table)))
    note = adaptation.method_note(results).replace(" Best in bold.", "")
    parts += [_wrap(note), _wrap(f"Step: {results['protocol']['chosen_by']}.")]
    parts.append(_wrap(adaptation.negative_sentence(results)))
    parts.append(_wrap(" ".join(Verdict(verdict["outcome"], str(verdict["sentence"])).parts)))
    return "\n\n".join(parts) + "\n"


def _unlabelled_text(results: Results) -> str:
    verdict = Verdict(results["verdict"]["outcome"], str(results["verdict"]["sentence"]))
    texts = (unlabelled.signs_note(results), f"Step: {results['protocol']['chosen_by']}.",
             " ".join(verdict.parts), unlabelled.advice(results))  # fmt: skip
    return (
        "\n\n".join([_wrap(results["title"]), aligned(_plain(unlabelled.signs_table(results))), *map(_wrap, texts)])
        + "\n"
    )


def _plain(table: Table) -> list[Row]:
    return [table.head, *(tuple(cell.plain for cell in row) for row in table.rows)]


def aligned(rows: Sequence[Row]) -> str:
    """`rows` with aligned columns, the first to the left, the others to the right; a row of one cell heads a part.

    A table wider than the terminal comes in pieces of fewer columns.
    """
    columns = max(map(len, rows))
    widths = [max((len(row[i]) for row in rows if len(row) > max(i, 1)), default=0) for i in range(columns)]
    if sum(widths) + 2 * (columns - 1) > WIDTH and columns > 2:
        half = (columns + 1) // 2
        left = [row[:half] for row in rows]
        right = [row if len(row) < 2 else (row[0], *row[half:]) for row in rows]
        return f"{aligned(left)}\n\n{aligned(right)}"
    return "\n".join(_line(row, widths) for row in rows)


def _metric_rows(results: Results) -> list[Row]:
    """One row a metric, and after the verdict's the gain in it, whose interval would make columns too wide."""
    rows = []
    for head, cells in _turned(main_table(results, reported_metrics(results))):
        if head != GAIN:
            rows.append((head, *(cell.plain for cell in cells)))
            continue
        rows.append((f"  {head}", *(cell.text for cell in cells)))
        if any(cell.note for cell in cells):
            rows.append(("  its interval", *(cell.note for cell in cells)))
        for name in references(results)[1:]:
            over = [gain_over_cell(results, method, name).text for method in results["methods"]]
            rows.append((f"  over {label(name)}", *over))
    return rows


def _shot_rows(results: Results) -> list[Row]:
    """One row for every number of labels, if there are several."""
    if len(results["shots"]) == 1:
        return []
    methods = len(results["methods"])
    columns = _turned(shots_table(results))
    heading = f"{main_scale(results).metric.heading} by {labels_noun(results)}"
    area = [("  area under it", *(cell.plain for cell in area_row(results)))] if area_row(results) else []
    by_shots = [(f"  {head}", *(cell.plain for cell in cells[:methods])) for head, cells in columns]
    return [(), (heading,), *by_shots, *area]


def _turned(table: Table) -> list[tuple[str, list[Cell]]]:
    """The columns of a table after its first: `(head, cells)`."""
    return [(head, [row[i] for row in table.rows]) for i, head in enumerate(table.head) if i]


def _line(row: Row, widths: list[int]) -> str:
    cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
    return "  ".join(cells).rstrip()


def _wrap(text: str) -> str:
    return textwrap.fill(one_line(text), WIDTH)
