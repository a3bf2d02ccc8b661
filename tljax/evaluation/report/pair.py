"""Two finished runs of one task on one page: paired differences first, then the two reports side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.evaluation.gain import verdict
from tljax.evaluation.report import tables
from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Table, Verdict, one_line
from tljax.evaluation.report.canvas import drawing, require_matplotlib, to_svg
from tljax.evaluation.report.document import document, subtitle
from tljax.evaluation.report.drawing import draw
from tljax.evaluation.report.html import escape, framed, render_blocks
from tljax.evaluation.report.numbers import MISSING, Scale, in_order
from tljax.evaluation.report.pair_picture import pair_figure, pair_picture
from tljax.evaluation.report.pairing import Pairs, Run, check_same_task, common_shots, paired
from tljax.evaluation.report.results import check, judged, label, labels_noun, main_scale, mean, scale_of
from tljax.evaluation.report.text import WIDTH, aligned
from tljax.evaluation.report.theme import DARK, LIGHT, Theme


def render_pair(
    first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]], changed: Sequence[str] = ()
) -> str:
    """One HTML page with two runs, each `(name, results)`; differences are second minus first.

    Args:
        changed: lines that say in which settings they differ.

    Raises:
        ReportError: results that lack a part, runs of different tasks, or matplotlib is missing.
    """
    runs = _checked(first, second)
    drawn = [_drawn(runs, theme) for theme in (LIGHT, DARK)]
    body = [render_blocks(_blocks(runs, changed), *drawn), '<div class="sides">']
    for which, run in zip(("first", "second"), runs):
        blocks = [_renamed(block, which) for block in document(run.results)]
        head = f"<h2>{escape(run.name)}</h2>\n<p>{escape(str(run.results['title']))}</p>"
        note = f'<p class="note">{escape(subtitle(run.results))}</p>'
        body.append(f"<section>\n{head}\n{note}\n{render_blocks(blocks, *drawn)}\n</section>")
    said = f"{_words(runs)}: {runs[1].name} against {runs[0].name}"
    return framed(said, "Two runs of one task", "\n".join([*body, "</div>"]), wide=True)


def render_pair_text(first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]) -> str:
    """The paired differences as plain text, at most 100 columns wide; raises as `render_pair`."""
    runs = _checked(first, second)
    table = _methods(runs)
    rows = [table.head, *(tuple(cell.plain for cell in row) for row in table.rows)]
    parts = [f"{runs[1].name} against {runs[0].name}: {_words(runs)}", _note(runs), " ".join(_verdict(runs).parts)]
    wrapped = [textwrap.fill(one_line(part), WIDTH) for part in parts]
    return "\n\n".join([wrapped[0], aligned(rows), *wrapped[1:]]) + "\n"


_Two = tuple[Run, Run]


def _checked(first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]) -> _Two:
    runs = Run(*first), Run(*second)
    for run in runs:
        check(run.results)
    check_same_task(*runs)
    return runs


def _drawn(runs: _Two, theme: Theme) -> dict[str, str]:
    require_matplotlib()
    found: dict[str, str] = {}
    for which, run in zip(("first", "second"), runs):
        found |= {f"{which}-{name}": svg for name, svg in draw(run.results, theme).items()}
    with drawing(theme):
        found["pair"] = to_svg(pair_figure(*runs, theme))
    return found


def _renamed(block: Block, which: str) -> Block:
    return block._replace(name=f"{which}-{block.name}") if isinstance(block, Picture) else block


def _blocks(runs: _Two, changed: Sequence[str]) -> list[Block]:
    blocks: list[Block] = [_verdict(runs), Heading(f"By method, {_words(runs)}"), _methods(runs)]
    blocks.append(Paragraph(_note(runs), small=True))
    blocks += [*pair_picture(*runs), Heading(f"Every metric, {_judged_words(runs)}"), _metrics(runs)]
    both = [shots for shots in runs[0].results["shots"] if shots in runs[1].results["shots"]]
    if len(both) > 1:
        blocks += [Heading(f"By {labels_noun(runs[0].results)}, {_judged_words(runs)}"), _by_shots(runs, both)]
    blocks.append(Heading("Settings that differ"))
    if not changed:
        return [*blocks, Paragraph("None that was recorded.")]
    rows = []
    for line in changed:
        name, _, rest = line.partition(": was ")
        before, _, after = rest.partition(", now ")
        rows.append((Cell(name), Cell(before), Cell(after)))
    return [*blocks, Table(("setting", runs[0].name, runs[1].name), tuple(rows), numeric=False)]


def _words(runs: _Two) -> str:
    shots = common_shots(*runs)
    if shots is None:
        return "no number of labels in common"
    return "all labels" if shots == "all" else f"{shots} {labels_noun(runs[0].results, shots)}"


def _judged_words(runs: _Two) -> str:
    methods = dict.fromkeys(label(judged(run.results)) for run in runs)
    return " and ".join(methods)


def _verdict(runs: _Two) -> Verdict:
    shots, scale = common_shots(*runs), main_scale(runs[0].results)
    methods = judged(runs[0].results), judged(runs[1].results)
    found = paired(*runs, methods, shots, scale.metric.key)
    if found.gain is None:
        return Verdict(
            "undecided",
            "Undecided: the runs share no draw of labels that both recorded, so no difference is paired; only the "
            "means with their intervals can be compared.",
        )
    names = [f"{run.name} ({label(method)})" for run, method in zip(runs, methods)]
    told = verdict(found.gain, metric=scale.metric.key, baseline=names[0], subject=names[1])
    tiles = []
    for run, method in zip(runs, methods):
        value, half = mean(run.results, method, shots, scale.metric.key)
        around = "" if half is None else f" ± {scale.value(half)}"
        tiles.append((scale.value(value) + scale.unit, f"{scale.metric.label}, {run.name}{around}"))
    return Verdict(told.outcome, told.sentence, tuple(tiles))


def _methods(runs: _Two) -> Table:
    """A row for every method of either run, and one for the judged methods where these differ."""
    shots, scale = common_shots(*runs), main_scale(runs[0].results)
    pairs = [(m, m) for m in dict.fromkeys([*runs[0].results["methods"], *runs[1].results["methods"]])]
    methods = judged(runs[0].results), judged(runs[1].results)
    if methods[0] != methods[1]:
        pairs.insert(0, methods)
    rows = tuple(_row(runs, pair, shots, scale, " → ".join(dict.fromkeys(map(label, pair)))) for pair in pairs)
    return Table((f"{scale.metric.heading}", *(run.name for run in runs), "difference", "paired"), rows)


def _metrics(runs: _Two) -> Table:
    shots = common_shots(*runs)
    methods = judged(runs[0].results), judged(runs[1].results)
    keys = {key for run in runs for entry in run.results["summary"] for key in entry["metrics"]}
    rows = []
    for metric in in_order(keys):
        scale = scale_of(runs[0].results, metric.key)
        rows.append(_row(runs, methods, shots, scale, metric.heading))
    return Table(("metric", *(run.name for run in runs), "difference", "paired"), tuple(rows))


def _by_shots(runs: _Two, both: list[Any]) -> Table:
    scale = main_scale(runs[0].results)
    methods = judged(runs[0].results), judged(runs[1].results)
    rows = tuple(_row(runs, methods, shots, scale, str(shots)) for shots in both)
    return Table((labels_noun(runs[0].results), *(run.name for run in runs), "difference", "paired"), rows)


def _row(runs: _Two, methods: tuple[str, str], shots: Any, scale: Scale, name: str) -> tuple[Cell, ...]:
    values = []
    for run, method in zip(runs, methods):
        value, half = mean(run.results, method, shots, scale.metric.key)
        values.append(Cell(scale.value(value), "" if half is None else f"± {scale.value(half)}"))
    found = paired(*runs, methods, shots, scale.metric.key)
    return (Cell(name), *values, *_difference(found, scale))


def _difference(found: Pairs, scale: Scale) -> tuple[Cell, Cell]:
    if found.gain is None:
        return Cell(MISSING), Cell("0")
    gain = found.gain
    outcome = "helped" if gain.interval.low > 0 else "hurt" if gain.interval.high < 0 else ""
    sign = -1 if scale.metric.higher_is_better is False else 1  # the table shows the change itself, not the gain
    low, high = sorted((sign * gain.interval.low, sign * gain.interval.high))
    bounds = f"[{scale.gain(low)}, {scale.gain(high)}]" if gain.interval.n > 1 else ""
    text = f"{scale.gain(sign * gain.mean)} {tables.SIGNS.get(outcome, '')}".strip()
    return Cell(text, bounds, tone=tables.TONES.get(outcome, "")), Cell(str(gain.interval.n))


def _note(runs: _Two) -> str:
    scale = main_scale(runs[0].results)
    methods = judged(runs[0].results), judged(runs[1].results)
    found = paired(*runs, methods, common_shots(*runs), scale.metric.key)
    unit = " in percentage points" if scale.metric.percent else ""
    note = (
        f"Mean ± half-width of its interval over seeds. Difference: {runs[1].name} minus {runs[0].name}{unit}, paired "
        "over the draws of labels that both runs have, with its 95 % interval; ▲ better and ▼ worse mark those that "
        "leave out zero. Paired: how many draws."
    )
    if found.gain is not None and found.gain.interval.n == 1:
        note += " One pair has no interval."
    if found.unpaired:
        s = "s are" if found.unpaired > 1 else " is"
        note += f" {found.unpaired} draw{s} in one of the runs only, or of other examples, and left out of differences."
    return note
