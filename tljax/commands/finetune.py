"""`tljax finetune`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_numerics, add_run, given, numbers, words


def add_finetune(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune a pretrained model on labelled data, by one method or by several that are compared",
        description="Fine-tune the model in a folder or a weight file on sentences (TSV, CSV) or images. Several "
        "methods are compared on the same labels: accuracy with intervals over seeds, the paired gain over the frozen "
        "probe and over full fine-tuning, and what each costs. Learning rates are chosen on the validation split.",
        epilog="METHOD is full, linear-probe, lp-ft, bitfit, norm-only, lora, rslora, dora, pissa, olora, vera or ia3. "
        "The run folder gets report.html, report.md, results.json, what each method learnt, and the best model in "
        "model/; the same command continues a run that was interrupted.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("model and data"))
    _add_methods(parser.add_argument_group("methods"))
    _add_training(parser.add_argument_group("training"))
    add_run(parser.add_argument_group("run"))
    parser.set_defaults(command=_finetune)


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--model", metavar="PATH", help="a folder or a file of pretrained weights, or hf://owner/name")
    add(
        "--data",
        metavar="DATA",
        help="a .tsv or .csv of sentences, .gz too; or images: .npz, a folder by class, ...",
    )
    add("--valid", metavar="DATA", help="the validation part (default: the file beside --data, else a fifth of it)")
    add("--test", metavar="DATA", help="the test part (default: the file beside --data, else a fifth of it)")
    add("--label", metavar="COLUMN", help="the column of labels (default: by name)")
    add("--text", metavar="COLUMN", help="the column of sentences (default: by name)")
    add("--labels-per-class", type=int, metavar="K", help="labelled examples of each class (default: all)")
    add("--max-length", type=int, metavar="N", help="tokens of a sentence (default: cuts one in a hundred at most)")
    add("--image-size", type=int, metavar="N", help="resize images to N x N (default: the model's size)")
    add("--mean", type=numbers, metavar="X,...", help="of the pixels, by channel (default: of the training images)")
    add("--std", type=numbers, metavar="X,...", help="deviation of the pixels, by channel (default: the same)")


def _add_methods(group: Any) -> None:
    add = group.add_argument
    add("--method", dest="methods", type=words, metavar="METHOD", help="how the model is fine-tuned (default: full)")
    add("--methods", type=words, metavar="METHOD,...", help="several methods, to be compared")
    add("--rank", type=int, metavar="R", help="of low-rank adapters, at most what a matrix has (default: 8)")
    add("--alpha", type=float, metavar="A", help="of low-rank adapters: their scale is A / R (default: 16)")
    add(
        "--target",
        type=words,
        metavar="GLOB,...",
        help="the leaves that get adapters (default: attention query and value; without attention, all kernels)",
    )
    add(
        "--regularizer",
        type=words,
        metavar="NAME[:WEIGHT],...",
        help="l2-sp, delta, bss, lwf, co-tuning: keep what is fine-tuned near the source (default: none; weights as "
        "published)",
    )
    add(
        "--keep-head",
        action=argparse.BooleanOptionalAction,
        help="start from the head in the file, where it has as many classes (default: no, afresh)",
    )


def _add_training(group: Any) -> None:
    add = group.add_argument
    add("--seeds", type=int, metavar="N", help="draws of labels, initialisation and data order (default: 1)")
    add("--seed", type=int, metavar="N", help="the first seed (default: 0)")
    add("--steps", type=int, metavar="N", help="training steps of every method (default: 200)")
    add("--batch-size", type=int, metavar="N", help="examples per step (default: 16)")
    add_numerics(group)
    add(
        "--learning-rates",
        action="append",
        metavar="[METHOD=]R,...",
        help="tried on the validation split, for all methods or one; may be repeated (default: by method)",
    )
    add(
        "--tune",
        choices=("every", "first"),
        help="which seeds choose a rate: every, or the first for all",
    )


def _finetune(options: argparse.Namespace) -> int:
    settings = given(options)
    from tljax.recipes.finetune import finetune_settings, run_finetune

    print(run_finetune(finetune_settings(settings), show=not hasattr(options, "quiet")))
    return 0
