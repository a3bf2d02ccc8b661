"""`tljax probe`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_run, given, integers, numbers, words


def add_probe(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "probe",
        help="tell what a few labels per class are worth on the frozen features of a pretrained model",
        description="Compute the features of a pretrained model once, and fit heads to draws of 1, 5, 10, ... labelled "
        "examples of each class: test accuracy with its interval over the draws, beside the majority class. What a "
        "head has to choose is chosen on its labelled examples.",
        epilog="HEAD is ridge (closed form, exact leave-one-out), logistic, knn, centroid or lda. The run folder gets "
        "results.json.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("model and data"))
    _add_probing(parser.add_argument_group("probing"))
    add_run(parser.add_argument_group("run"))
    parser.set_defaults(command=_probe)


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--model", metavar="PATH", help="a folder or a file of pretrained weights, or hf://owner/name")
    add("--data", metavar="DATA", help="a .tsv or .csv of sentences, .gz too; or images: .npz, a folder by class, ...")
    add("--features", metavar="FILE", help="an .npz or a table of features and labels, in place of model and data")
    add("--valid", metavar="DATA", help="the validation part (default: the file beside --data, else a fifth of it)")
    add("--test", metavar="DATA", help="the test part (default: the file beside --data, else a fifth of it)")
    add("--label", metavar="COLUMN", help="the column of labels (default: by name)")
    add("--text", metavar="COLUMN", help="the column of sentences (default: by name)")
    add("--max-length", type=int, metavar="N", help="tokens of a sentence (default: cuts one in a hundred at most)")
    add("--image-size", type=int, metavar="N", help="resize images to N x N (default: the model's size)")
    add("--mean", type=numbers, metavar="X,...", help="of the pixels, by channel (default: of the training images)")
    add("--std", type=numbers, metavar="X,...", help="deviation of the pixels, by channel (default: the same)")
    add("--cache", metavar="DIR", help="a folder that keeps features for the next time (default: none)")


def _add_probing(group: Any) -> None:
    add = group.add_argument
    add("--head", dest="heads", type=words, metavar="HEAD,...", help="one or several (default: ridge,knn)")
    add("--shots", type=integers, metavar="K,...", help="labels per class (default: 1,5,10,25 as far as they go)")
    add("--seeds", type=int, metavar="N", help="draws of labelled examples (default: 20)")
    add("--seed", type=int, metavar="N", help="the first seed (default: 0)")


def _probe(options: argparse.Namespace) -> int:
    settings = given(options)
    from tljax.recipes.probing import probe_settings, run_probe

    print(run_probe(probe_settings(settings), show=not hasattr(options, "quiet")))
    return 0
