"""The command line. It imports jax only once a command has been understood, so that help comes at once."""

import argparse
import json
import pathlib
import sys
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

from tljax import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `arguments` (default: those of the process) and return its exit status.

    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 0
    return _guarded(lambda: options.command(options), debug=options.debug)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `tljax` and all its sub-commands.

    >>> build_parser().parse_args(["transfer", "--shots", "1,5"]).shots
    (1, 5)
    """
    parser = argparse.ArgumentParser(
        prog="tljax",
        description="Transfer learning in JAX: graft a pretrained model, adapt it, tell whether transfer helped.",
        epilog="`tljax COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"tljax {__version__}")
    _add_completion(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_transfer(commands)
    _add_weights(commands)
    return parser


def _add_weights(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="show what is in a weight file", formatter_class=_HelpFormatter)
    inspect.add_argument("file", metavar="FILE", help="a weight file, or a folder with config.json and weights")
    inspect.set_defaults(command=_inspect)
    convert = commands.add_parser(
        "convert",
        help="write a weight file in another format",
        description="Write the weights of SOURCE in the format that the suffix of TARGET names: .safetensors, .npz, "
        ".msgpack or .pt. Names and values stay as they are; what is no weight, such as optimiser state, is left out.",
        formatter_class=_HelpFormatter,
    )
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET")
    convert.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    convert.set_defaults(command=_convert)
    models = commands.add_parser("models", help="list the models of the catalogue", formatter_class=_HelpFormatter)
    models.set_defaults(command=_models)
    for parser in (inspect, convert, models):
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_transfer(commands: Any) -> None:
    parser = commands.add_parser(
        "transfer",
        help="pretrain on a source, graft, fine-tune on a target, and tell whether it helped",
        description="Pretrain a model on a source task, graft its backbone into a model for a target task with few "
        "labels, fine-tune it, and compare with training from scratch, a linear probe and k-NN on the same budget. "
        "Without options: real handwritten digits, classes 0-4 as the source and 5-9 as the target.",
        epilog="DATA is a built-in name (digits, ...), an .npz file, a folder with MNIST idx files, a folder of images "
        "by class, or a CSV/TSV file. The run folder gets report.html, report.md, results.json, metrics and "
        "checkpoints; the same command continues a run that was interrupted.",
        formatter_class=_HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("data"))
    _add_method(parser.add_argument_group("model and method"))
    _add_run(parser.add_argument_group("run"))
    parser.set_defaults(command=_transfer)


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--source", metavar="DATA", help="what to pretrain on (default: digits)")
    add("--target", metavar="DATA", help="what to transfer to (default: digits)")
    add("--source-classes", metavar="LIST", help="only these classes, as 0-4 or cat,dog (default: all; for digits 0-4)")
    add("--target-classes", metavar="LIST", help="the same for the target (default: all; for digits 5-9)")
    add("--label", metavar="COLUMN", help="the label column of CSV/TSV files (default: by name, else the last)")
    add("--image-size", type=int, metavar="N", help="resize all images to N x N (default: the target's size)")
    add("--labels-per-class", type=int, metavar="K", help="labels per class in the main comparison (default: 10)")
    add("--shots", type=_integers, metavar="K,...", help="labels per class of the curve (default: 1,2,5,10)")


def _add_method(group: Any) -> None:
    add = group.add_argument
    add("--model", metavar="NAME", help="of the catalogue: resnet8, lenet, mlp, vit-ti, ... (default: resnet8)")
    add(
        "--method",
        metavar="NAME",
        help="how the grafted model is adapted: full fine-tuning, linear-probe (head only), or lp-ft (first the head, "
        "then all) (default: full)",
    )
    add("--seeds", type=int, metavar="N", help="draws of labels, initialisation and data order (default: 5)")
    add("--seed", type=int, metavar="N", help="the first seed (default: 0)")
    add("--steps", type=int, metavar="N", help="training steps of every method on the target (default: 100)")
    add("--pretrain-steps", type=int, metavar="N", help="training steps on the source (default: 400)")
    add("--augment", action=argparse.BooleanOptionalAction, help="shift images while pretraining (default: yes)")
    add("--batch-size", type=int, metavar="N", help="examples per step (default: 32)")
    add(
        "--learning-rates",
        type=_numbers,
        metavar="R,...",
        help="tried for every method alike, chosen on the validation split (default: 0.003,0.01)",
    )


def _add_run(group: Any) -> None:
    add = group.add_argument
    add("--run-dir", metavar="DIR", help="folder for results and checkpoints (default: runs/<named by the settings>)")
    add("--resume", action=argparse.BooleanOptionalAction, help="continue a run found in the folder (default: yes)")
    add("--config", metavar="FILE", help="TOML or JSON file with any of the options above; the command line wins")
    add("--quiet", action="store_true", help="print the result only")
    add("--debug", action="store_true", default=False, help="show the traceback of an error")


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)


_NO_SETTINGS = ("command", "config", "debug", "quiet", "print_completion")
"""Options of the command line that say nothing of the run itself."""


def _transfer(options: argparse.Namespace) -> int:
    given = {k: v for k, v in vars(options).items() if k not in _NO_SETTINGS}
    settings = _read_config(options.config) if hasattr(options, "config") else {}
    from tljax.recipes.settings import settings_from
    from tljax.recipes.transfer import run_transfer

    print(run_transfer(settings_from(settings | given), show=not hasattr(options, "quiet")))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from tljax.recipes.weights import inspect_file

    print(inspect_file(options.file))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from tljax.recipes.weights import convert_file

    print(convert_file(options.source, options.target, force=options.force))
    return 0


def _models(options: argparse.Namespace) -> int:
    from tljax.recipes.weights import models_table

    print(models_table())
    return 0


def _read_config(name: str) -> dict[str, Any]:
    from tljax.types import TljaxError

    file = pathlib.Path(name)
    kind = "JSON" if file.suffix == ".json" else "TOML"
    try:
        text = file.read_text()
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise TljaxError(f"--config {name} cannot be read as {kind}: {error}") from error
    if not isinstance(values, dict):
        raise TljaxError(f"--config {name} must hold option names with values; found a {type(values).__name__}")
    return {key.replace("-", "_"): value for key, value in values.items()}


def _list_of(kind: Callable[[str], Any], name: str) -> Callable[[str], tuple[Any, ...]]:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    read.__name__ = name  # argparse's message: invalid NAME value: '...'
    return read


_integers = _list_of(int, "list of integers")
_numbers = _list_of(float, "list of numbers")


def _add_completion(parser: argparse.ArgumentParser) -> None:
    try:
        import shtab
    except ImportError:  # the `completion` extra
        return
    shtab.add_argument_to(parser, ["--print-completion"], help="print a completion script for this shell")


def _guarded(command: Callable[[], int], *, debug: bool) -> int:
    """Run `command`; an error becomes one message and an exit status, or its traceback with `debug`."""
    from tljax.types import TljaxError

    try:
        return command()
    except TljaxError as error:
        if debug:
            raise
        return _fail(f"tljax: error: {error}", 2)
    except KeyboardInterrupt:
        return _fail("tljax: interrupted; the same command continues the run", 130)
    except SystemExit as error:  # SIGTERM: the run is saved, and has said so
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        if debug:
            raise
        return _fail(f"tljax: unexpected {type(error).__name__}: {error}\nRun again with --debug for the traceback.", 1)


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status
