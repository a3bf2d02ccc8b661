"""`tljax rank`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_run, given, numbers


def add_rank(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "rank",
        help="tell which pretrained model to start from, with the probability that it is the best",
        description="Rank pretrained models for a labelled set: heads on their frozen features, measured on examples "
        "that were left out and on subsets of the labels, so that the answer carries its uncertainty. Those at the top "
        "can be fine-tuned to settle it.",
        epilog="The run folder gets report.html, report.md and results.json. With all labels fine-tuning is judged on "
        "the validation part, with --labels-per-class by cross-validation of those labels.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("candidates and data"))
    _add_ranking(parser.add_argument_group("ranking"))
    _add_tuning(parser.add_argument_group("fine-tuning"))
    add_run(parser.add_argument_group("run"))
    parser.set_defaults(command=_rank)


def _add_data(group: Any) -> None:
    add = group.add_argument
    add(
        "--candidates",
        nargs="+",
        metavar="[NAME=]PATH",
        help="folders or files of pretrained weights, or hf://owner/name",
    )
    add("--data", metavar="DATA", help="a .tsv or .csv of sentences, .gz too; or images: .npz, a folder by class, ...")
    add("--label", metavar="COLUMN", help="the column of labels (default: by name)")
    add("--text", metavar="COLUMN", help="the column of sentences (default: by name)")
    add("--labels-per-class", type=int, metavar="K", help="labelled examples of each class (default: all)")
    add("--max-length", type=int, metavar="N", help="tokens of a sentence (default: cuts one in a hundred at most)")
    add("--image-size", type=int, metavar="N", help="resize images to N x N (default: each model's size)")
    add("--cache", metavar="DIR", help="a folder that keeps features for the next time (default: none)")


def _add_ranking(group: Any) -> None:
    add = group.add_argument
    add(
        "--priors",
        nargs="+",
        metavar="NAME=ACCURACY",
        help="what is expected of candidates before the data, as from past runs",
    )
    add("--subsets", type=int, metavar="S", help="subsets of the labels (default: 50)")
    add(
        "--racing",
        action=argparse.BooleanOptionalAction,
        help="drop candidates early that cannot win (default: yes)",
    )
    add("--seed", type=int, metavar="N", help="of the draws of labels, subsets and folds (default: 0)")


def _add_tuning(group: Any) -> None:
    add = group.add_argument
    add("--finetune", type=int, metavar="N", help="fine-tune the N likeliest (LP-FT) (default: 0)")
    add("--seeds", type=int, metavar="N", help="orders of the data in fine-tuning (default: 1)")
    add("--steps", type=int, metavar="N", help="training steps (default: 100)")
    add("--batch-size", type=int, metavar="N", help="examples per step (default: 16)")
    add("--learning-rates", type=numbers, metavar="R,...", help="to be tried (default: by architecture)")


def _rank(options: argparse.Namespace) -> int:
    settings = given(options)
    from tljax.recipes.ranking import rank_settings, run_rank

    print(run_rank(rank_settings(settings), show=not hasattr(options, "quiet")))
    return 0
