"""The command line. It imports jax only once a command has been understood, so that help comes at once."""

import argparse
import sys
from collections.abc import Sequence

from tljax import __version__
from tljax.commands.adapt import add_adapt
from tljax.commands.bench import add_bench
from tljax.commands.cache import keep_programs
from tljax.commands.evaluate import add_evaluate
from tljax.commands.finetune import add_finetune
from tljax.commands.merging import add_merging
from tljax.commands.options import Parser
from tljax.commands.probe import add_probe
from tljax.commands.processes import joined
from tljax.commands.rank import add_rank
from tljax.commands.transfer import add_transfer
from tljax.commands.weights import add_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `arguments` (default: those of the process) and return its exit status.

    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    try:
        parser = build_parser()
        options = parser.parse_args(arguments)
        if not hasattr(options, "command"):
            parser.print_help()
            return 0
        return _guarded(options)
    except KeyboardInterrupt:  # before the command began: jax takes its time to import
        return _fail("tljax: interrupted", 130)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `tljax` and all its sub-commands.

    >>> build_parser().parse_args(["transfer", "--shots", "1,5"]).shots
    (1, 5)
    """
    parser = Parser(
        prog="tljax",
        description="Transfer learning in JAX: graft a pretrained model, adapt it, tell whether transfer helped.",
        epilog="`tljax COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"tljax {__version__}")
    _add_completion(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_finetune(commands)
    add_transfer(commands)
    add_adapt(commands)
    add_probe(commands)
    add_rank(commands)
    add_evaluate(commands)
    add_weights(commands)
    add_merging(commands)
    add_bench(commands)
    return parser


def _add_completion(parser: argparse.ArgumentParser) -> None:
    try:
        import shtab
    except ImportError:  # the `completion` extra
        return
    shtab.add_argument_to(parser, ["--print-completion"], help="print a completion script for this shell")


def _guarded(options: argparse.Namespace) -> int:
    """Run the command; an error becomes one message and an exit status, or its traceback with `--debug`."""
    from tljax.types import TljaxError

    try:
        keep_programs(options)
        with joined(options):
            return options.command(options)
    except TljaxError as error:
        if options.debug:
            raise
        return _fail(f"tljax: error: {error}", 2)
    except KeyboardInterrupt:
        return _fail("tljax: interrupted; the same command continues the run", 130)
    except SystemExit as error:  # SIGTERM: the run is saved, and has said so
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        if options.debug:
            raise
        return _fail(f"tljax: unexpected {type(error).__name__}: {error}\nRun again with --debug for the traceback.", 1)


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status
