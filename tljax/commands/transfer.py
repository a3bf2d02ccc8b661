"""`tljax transfer`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_numerics, add_run, given, integers, numbers


def add_transfer(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "transfer",
        help="pretrain on a source, graft, fine-tune on a target, and tell whether it helped",
        description="Pretrain a model on a source task, graft its backbone into a model for a target task with few "
        "labels, fine-tune it, and compare with training from scratch, a linear probe and k-NN on the same budget. "
        "Without options: real handwritten digits, classes 0-4 as the source and 5-9 as the target.",
        epilog="DATA is a built-in name (digits, ...), an .npz file, a folder with MNIST idx files, a folder of images "
        "by class, or a CSV/TSV file. The run folder gets report.html, report.md, results.json, metrics and "
        "checkpoints; the same command continues a run that was interrupted.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("data"))
    _add_method(parser.add_argument_group("model and method"))
    add_run(parser.add_argument_group("run"))
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
    add("--shots", type=integers, metavar="K,...", help="labels per class of the curve (default: 1,2,5,10)")


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
    add(
        "--repeats",
        type=int,
        metavar="N",
        help="training seeds on each draw of labels; 2 or more tell apart what the draw does and what training does "
        "(default: 1)",
    )
    add("--seed", type=int, metavar="N", help="the first seed (default: 0)")
    add("--steps", type=int, metavar="N", help="training steps of every method on the target (default: 100)")
    add("--pretrain-steps", type=int, metavar="N", help="training steps on the source (default: 400)")
    add("--augment", action=argparse.BooleanOptionalAction, help="shift images while pretraining (default: yes)")
    add("--batch-size", type=int, metavar="N", help="examples per step (default: 32)")
    add_numerics(group)
    add(
        "--learning-rates",
        type=numbers,
        metavar="R,...",
        help="tried for every method alike, chosen on the validation split (default: 0.003,0.01)",
    )


def _transfer(options: argparse.Namespace) -> int:
    settings = given(options)
    from tljax.recipes.settings import settings_from
    from tljax.recipes.transfer import run_transfer

    print(run_transfer(settings_from(settings), show=not hasattr(options, "quiet")))
    return 0
