"""`tljax inspect`, `tljax convert` and `tljax models`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_debug


def add_weights(commands: Any) -> None:
    """Add the commands that look at weight files."""
    inspect = commands.add_parser("inspect", help="show what is in a weight file", formatter_class=HelpFormatter)
    inspect.add_argument("file", metavar="FILE", help="a weight file, or a folder with config.json and weights")
    inspect.set_defaults(command=_inspect)
    convert = commands.add_parser(
        "convert",
        help="write a weight file in another format",
        description="Write the weights of SOURCE in the format that the suffix of TARGET names: .safetensors, .npz, "
        ".msgpack or .pt. Names and values stay as they are; what is no weight, such as optimiser state, is left out.",
        formatter_class=HelpFormatter,
    )
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET")
    convert.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    convert.set_defaults(command=_convert)
    models = commands.add_parser("models", help="list the models of the catalogue", formatter_class=HelpFormatter)
    models.set_defaults(command=_models)
    for parser in (inspect, convert, models):
        add_debug(parser)


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
