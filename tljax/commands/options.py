"""What the parsers of several commands share: lists of numbers, the options of a run, and files of options."""

import argparse
import difflib
import json
import pathlib
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tljax.commands.cache import add_cache


class HelpFormatter(argparse.HelpFormatter):
    """Help in 100 columns."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest options and commands where it meets one that it does not know."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its parent's, but a command says by itself what it does not know: its options are nearer than others."""
        self._given = sys.argv[1:] if args is None else list(args)
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print `message`, the nearest names and where to read on, and exit with status 2."""
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            near = {choice[1]: re.findall(r"[\w.-]+", choice[2])}
        else:
            options = re.findall(r"(?<![\w-])--[\w-]+", self.format_help())
            words = [word.split("=")[0] for word in self._given if word.startswith("--")]
            near = {word: options for word in words if not any(option.startswith(word) for option in options)}
        for word, names in near.items():
            close = difflib.get_close_matches(word, dict.fromkeys(names), n=3)
            message += f"\n{word}: did you mean {' or '.join(close)}?" if close else ""
        self.exit(2, f"{self.prog}: error: {message}\n`{self.prog} --help` tells more.\n")


def add_debug(parser: Any) -> None:
    """Add the option of every command."""
    parser.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")


def add_run(group: Any) -> None:
    """Add the options of a command that has a run folder; without defaults, which its recipe knows."""
    add = group.add_argument
    add("--run-dir", metavar="DIR", help="folder for results and checkpoints (default: runs/<named by the settings>)")
    add("--resume", action=argparse.BooleanOptionalAction, help="continue a run found in the folder (default: yes)")
    add("--config", metavar="FILE", help="TOML or JSON file with any of the options above; the command line wins")
    add("--quiet", action="store_true", help="print the result only")
    add_cache(group)
    add_debug(group)
    _add_processes(group)


def add_numerics(group: Any) -> None:
    """Add the options of a command that trains: the type of numbers, what saves memory, and the devices."""
    add = group.add_argument
    add(
        "--precision", metavar="TYPE",
        help="of the model's arithmetic: float32, bfloat16 or float16; what learns stays float32 (default: float32)",
    )  # fmt: skip
    add(
        "--remat", metavar="WHAT",
        help="computed again in the backward pass to save memory: none, blocks or dots (default: none)",
    )  # fmt: skip
    add(
        "--microbatch", metavar="N",
        help="examples that go through the model at once, or auto: as many as fit into memory (default: the batch)",
    )  # fmt: skip
    add("--clip-norm", type=float, metavar="N", help="scale longer gradients down to this norm (default: none are)")
    add("--mesh", metavar="AXIS=N,...", help="spread training over devices, as data=4,fsdp=2 (default: one device)")


def _add_processes(group: Any) -> None:
    """Add the options of a run that several processes share: the same command is started in each of them."""
    add = group.add_argument
    add("--coordinator", metavar="HOST:PORT", help="process 0, where the processes of a run meet; start all of them")
    add("--num-processes", type=int, metavar="N", help="how many processes there are")
    add("--process-id", type=int, metavar="I", help="which of them this is, 0 to N-1")
    add("--distributed", action="store_true", help="ask Slurm, Open MPI, Kubernetes or the TPU for these three")


PROCESSES = ("coordinator", "num_processes", "process_id", "distributed")
NO_SETTINGS = ("command", "config", "debug", "quiet", "no_compile_cache", "print_completion", *PROCESSES)
"""Options of the command line that say nothing of the run itself."""


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names, over those of the file of `--config`.

    Raises `TljaxError` where the file cannot be read.

    >>> given(argparse.Namespace(command=print, steps=3, quiet=True))
    {'steps': 3}
    """
    named = {k: v for k, v in vars(options).items() if k not in NO_SETTINGS}
    return (read_config(options.config) if hasattr(options, "config") else {}) | named


def read_config(name: str) -> dict[str, Any]:
    """The options in a TOML or JSON file; raises `TljaxError` where it cannot be read."""
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


def expressions(text: str) -> tuple[str, ...]:
    """The parts between commas, but for commas inside brackets.

    >>> expressions("mlp(hidden=(8, 8), dropout=0.1),lenet")
    ('mlp(hidden=(8, 8), dropout=0.1)', 'lenet')
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


integers = _list_of(int, "list of integers")
numbers = _list_of(float, "list of numbers")
words = _list_of(str, "list")
