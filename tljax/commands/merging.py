"""`tljax merge` and `tljax adapters`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_debug, numbers


def add_merging(commands: Any) -> None:
    """Add the commands that combine weights."""
    _add_merge(commands)
    adapters = commands.add_parser(
        "adapters", help="list, combine and merge peft adapters", formatter_class=HelpFormatter
    )
    actions = adapters.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_combine(actions)
    _add_export(actions)


def _add_merge(commands: Any) -> None:
    parser = commands.add_parser(
        "merge",
        help="merge weight files of models that started from the same weights",
        description="Merge weight files with equal names and shapes. Methods: uniform (the mean, or a weighted one), "
        "wise (a point on the line between two), slerp (on the arc between two), and, with --base: stock (Model "
        "Stock), task (task arithmetic), ties, dare.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="weight files, or folders with weights")
    add("--out", metavar="FILE", required=True, help="where to; the suffix tells the format")
    add("--method", metavar="NAME", default="uniform", help="one of the above (default: uniform)")
    add("--base", metavar="FILE", help="the pretrained weights that all files started from")
    add("--weights", metavar="W,...", type=numbers, help="one for each file (uniform, task, dare)")
    add("--alpha", metavar="A", type=float, default=0.5, help="wise, slerp: how far to the second (default: 0.5)")
    add(
        "--scale", metavar="S", type=float, help="of the differences (default: task 0.4, ties 1, dare 1 over the files)"
    )
    _add_sparse(parser, "difference")
    add(
        "--keep", metavar="GLOB", action="append", default=[], help="leaves left as in the base, or else the first file"
    )
    add("--force", action="store_true", help="replace the file if it exists")
    add_debug(parser)
    parser.set_defaults(command=_merge)


def _add_sparse(parser: Any, what: str) -> None:
    add = parser.add_argument
    add("--density", metavar="D", type=float, default=0.2, help=f"ties: the share of each {what} kept (default: 0.2)")
    add("--rate", metavar="P", type=float, default=0.9, help=f"dare: the share of each {what} dropped (default: 0.9)")
    add("--seed", metavar="N", type=int, default=0, help="dare: which elements are dropped (default: 0)")


def _add_list(actions: Any) -> None:
    parser = actions.add_parser("list", help="show what a peft folder adapts", formatter_class=HelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", help="folders with adapter_config.json")
    _add_base(parser)
    parser.set_defaults(command=_list)


def _add_combine(actions: Any) -> None:
    parser = actions.add_parser(
        "combine",
        help="write the weighted sum of several as one",
        description="Combine what peft folders add to the weights, and write one folder that peft reads. cat is exact, "
        "at the sum of the ranks; svd the best of one rank; ties and dare look at single elements.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("folders", metavar="FOLDER", nargs="+", help="peft folders of one base")
    add("--out", metavar="FOLDER", required=True, help="where to")
    add("--method", choices=("cat", "svd", "ties", "dare"), default="cat", help="(default: cat)")
    add("--weights", metavar="W,...", type=numbers, help="one for each folder (default: 1)")
    add("--rank", metavar="R", type=int, help="of svd, ties and dare (default: the largest of the folders)")
    _add_sparse(parser, "delta")
    add("--force", action="store_true", help="replace the folder with all that is in it")
    _add_base(parser)
    parser.set_defaults(command=_combine)


def _add_export(actions: Any) -> None:
    parser = actions.add_parser(
        "export", help="merge one into its base and write a Hugging Face folder", formatter_class=HelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", help="a peft folder")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="where to")
    parser.add_argument("--force", action="store_true", help="replace the folder with all that is in it")
    _add_base(parser)
    parser.set_defaults(command=_export)


def _add_base(parser: Any) -> None:
    parser.add_argument("--base", metavar="FOLDER", required=True, help="the model that was adapted, or an hf:// name")
    add_debug(parser)


def _merge(options: argparse.Namespace) -> int:
    from tljax.recipes.merging import merge_files

    print(merge_files(options.files, options.out, **_rest(options, "files", "out")))
    return 0


def _list(options: argparse.Namespace) -> int:
    from tljax.recipes.merging import adapters_table

    for folder in options.folders:
        print(adapters_table(folder, options.base))
    return 0


def _combine(options: argparse.Namespace) -> int:
    from tljax.recipes.merging import combine_adapters

    print(combine_adapters(options.folders, options.out, **_rest(options, "folders", "out")))
    return 0


def _export(options: argparse.Namespace) -> int:
    from tljax.recipes.merging import export_adapters

    print(export_adapters(options.folder, options.out, base=options.base, force=options.force))
    return 0


def _rest(options: argparse.Namespace, *taken: str) -> dict[str, Any]:
    left_out = {"command", "debug", "print_completion", *taken}
    return {name: value for name, value in vars(options).items() if name not in left_out}
