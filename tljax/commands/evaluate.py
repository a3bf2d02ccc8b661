"""`tljax evaluate` and `tljax report`: finished runs, looked at again."""

import argparse
import pathlib
from typing import Any

from tljax.commands.cache import add_cache
from tljax.commands.options import HelpFormatter, add_debug


def add_evaluate(commands: Any) -> None:
    """Add both commands."""
    _add_evaluate(commands)
    _add_report(commands)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="the metrics of finished runs side by side, or on new data",
        description="The metrics that finished runs of tljax transfer, finetune and adapt recorded on their test "
        "splits, side by side. With --data the models that validation chose are evaluated on new data: all of its "
        "examples.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument("--data", metavar="DATA", help="new data, in any form that the run's command reads")
    parser.add_argument("--classes", metavar="LIST", help="only these classes of the new data (transfer runs)")
    parser.add_argument("--label", metavar="COLUMN", help="the label column of new data that are a table")
    parser.add_argument("--json", metavar="FILE", help="write all metrics as JSON, too; - prints them instead of text")
    add_cache(parser)
    add_debug(parser)
    parser.set_defaults(command=_evaluate)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="the report of a finished run, or of two side by side, as one HTML file",
        description="Write the report of a finished run of tljax transfer, finetune or adapt anew, with its pictures; "
        "or one page with two runs of one task side by side, and paired differences where seeds and labels match.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("other", metavar="RUN2", nargs="?", help="another, to stand beside it")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the HTML file (default: report.html in RUN; for two runs report-RUN-RUN2.html here)",
    )
    add_debug(parser)
    parser.set_defaults(command=_report)


def _evaluate(options: argparse.Namespace) -> int:
    from tljax.checkpoints.run import make_folder, write_atomically
    from tljax.recipes.evaluated import run_evaluate
    from tljax.recipes.options import SettingsError

    if options.data is None and (options.classes or options.label):
        raise SettingsError("--classes and --label choose from new data: name them with --data DATA")
    found = run_evaluate(options.runs, data=options.data, classes=options.classes, label=options.label)
    if options.json == "-":
        print(found.json)
        return 0
    print(found, end="")
    if options.json:
        file = pathlib.Path(options.json)
        make_folder(file.parent)
        write_atomically(file, found.json)
    return 0


def _report(options: argparse.Namespace) -> int:
    from tljax.recipes.reported import run_report

    print(run_report(options.run, options.other, output=options.output))
    return 0
