"""The report of a ranking: who is the best and how surely, before any training or after that of the top few."""

from typing import Any

import numpy as np

from tljax.evaluation.report.blocks import Block, Cell, Heading, Paragraph, Picture, Table, Verdict
from tljax.evaluation.report.canvas import drawable, new_figure, place
from tljax.evaluation.report.numbers import plural
from tljax.evaluation.report.results import Results
from tljax.evaluation.report.theme import Theme

VOTES = {
    "ridge": "ridge %",
    "neighbours": "5-NN %",
    "centroid": "centroid %",
    "logme": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
}
"""The votes that tables show; accuracies in percent."""
_COLOUR = ("#0072b2", "#56b4e9")


def document(results: Results) -> list[Block]:
    """The blocks of the report, in the order of reading."""
    summary = results["summary"]
    first = summary["standings"][0]
    outcome = "decided" if summary["decided"] else "undecided"
    tiles = (
        (f"{first['p_best']:.2f}", f"probability that {first['name']} is the best"),
        (f"{100 * first['regret']:.1f}", "points of accuracy lost on average by choosing it"),
        (f"{100 * first['accuracy']:.1f} %", "its expected accuracy after fine-tuning"),
    )
    alt = "; ".join(
        f"{row['name']} {100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        for row in summary["standings"]
    )
    caption = (
        "Expected accuracy after fine-tuning with its 90 % interval, and the probability of being the best. "
        "Hollow: dropped early. A cross: what fine-tuning reached."
    )
    return [
        Verdict(outcome, str(summary["verdict"]), tiles),
        Heading("Candidates"),
        Picture("standings", alt, caption),
        _table(results),
        *(Paragraph(str(note), small=True) for note in (*summary["notes"], *results["notes"])),
        Heading("What was ranked"),
        _models(results),
    ]


def subtitle(results: Results) -> str:
    """One line under the title: what ran."""
    summary = results["summary"]
    return f"tljax rank · {plural(summary['labels'], 'label')} of {summary['classes']} classes"


def standings_figure(results: Results, theme: Theme) -> Any:
    """A row for each candidate: its interval, and the probability of being the best beside it."""
    rows = results["summary"]["standings"]
    figure = new_figure(0.75 + 0.36 * len(rows), theme)
    axes = place(figure, 1.9, 0.5, 1.0, 0.12)
    axes.grid(axis="x")
    colour = _COLOUR[theme.dark]
    for place_, row in enumerate(rows):
        axes.plot([100 * row["low"], 100 * row["high"]], [place_, place_], "-", color=colour, linewidth=2.2)
        face = theme.paper if row["dropped"] else colour
        axes.plot(100 * row["accuracy"], place_, "o", color=colour, markerfacecolor=face, markersize=7)
        if row["finetuned"] is not None:
            axes.plot(100 * row["finetuned"], place_, "x", color=theme.ink, markersize=7, markeredgewidth=1.6)
        axes.annotate(
            f"P = {row['p_best']:.2f}", (1.02, place_), xycoords=("axes fraction", "data"), va="center",
            annotation_clip=False, fontweight="bold" if place_ == 0 else "normal",
        )  # fmt: skip
    names = [drawable(row["name"], f"candidate {i + 1}", most=24) for i, row in enumerate(rows)]
    axes.set_yticks(np.arange(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.04)
    axes.set_xlabel("expected accuracy after fine-tuning, %")
    return figure


def _table(results: Results) -> Table:
    standings = results["summary"]["standings"]
    shown = [name for name in VOTES if any(row["votes"].get(name) is not None for row in standings)]
    tuned = any(row["finetuned"] is not None for row in standings)
    head = ("candidate", "accuracy %", "P(best)", "regret", *["fine-tuned %"] * tuned)
    rows = []
    for place_, row in enumerate(standings):
        cells = [
            Cell(row["name"], "dropped early" if row["dropped"] else "", strong=place_ == 0),
            Cell(f"{100 * row['accuracy']:.1f}", f"± {100 * row['deviation']:.1f}"),
            Cell(f"{row['p_best']:.2f}", strong=place_ == 0),
            Cell(f"{100 * row['regret']:.1f}"),
        ]
        if tuned:
            cells.append(Cell("" if row["finetuned"] is None else f"{100 * row['finetuned']:.1f}"))
        rows.append((*cells, *(_vote(row["votes"].get(name), VOTES[name]) for name in shown)))
    return Table((*head, *(VOTES[name] for name in shown)), tuple(rows))


def _vote(value: float | None, title: str) -> Cell:
    if value is None:
        return Cell("")
    return Cell(f"{100 * value:.1f}" if "%" in title else f"{value:.3f}")


def _models(results: Results) -> Table:
    rows = tuple(
        (Cell(name), Cell(str(model["path"])), Cell(str(model["recognised"])), Cell(f"{model['parameters']:,}"))
        for name, model in results["models"].items()
    )
    return Table(("candidate", "weights", "architecture", "parameters"), rows, numeric=False)
