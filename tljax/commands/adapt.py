"""`tljax adapt`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_numerics, add_run, given


def add_adapt(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "adapt",
        help="adapt a model from a labelled source to a target without labels, and tell whether it helped",
        description="Train a model on a labelled source and an unlabelled target by a method of domain adaptation, or "
        "by several that add up, and compare with training on the source alone on the same budget. The step is chosen "
        "without labels of the target. Without options: real handwritten digits, and others that are turned by 35 "
        "degrees.",
        epilog="DATA is a built-in name, an .npz file (#name chooses a pair of arrays), a folder with MNIST idx files, "
        "a folder of images by class, a CSV/TSV file of numbers, or with --weights of a text model one of sentences. "
        "The run folder gets report.html, report.md, results.json, metrics, checkpoints and the chosen parameters.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser.add_argument_group("data"))
    _add_method(parser.add_argument_group("model and method"))
    _add_training(parser.add_argument_group("training"))
    add_run(parser.add_argument_group("run"))
    parser.set_defaults(command=_adapt)


def _add_data(group: Any) -> None:
    add = group.add_argument
    add("--source", metavar="DATA", help="the labelled domain (default: digits-plain)")
    add("--target", metavar="DATA", help="the domain to adapt to, with the same classes (default: digits-turned)")
    add("--classes", metavar="LIST", help="only these classes of both, as 0-4 or cat,dog; shared: those of both")
    add(
        "--unlabelled",
        action="store_true",
        help="nobody knows labels of the target: images in any folder, x without y, tables without a label column; the "
        "report tells signs in place of accuracy, and predictions.csv the class of each example",
    )
    add(
        "--test",
        metavar="DATA",
        help="labelled examples of the target to test on; those of --target need no labels then, and none are read",
    )
    add("--label", metavar="COLUMN", help="the label column of tables: its name, or number from 0 (default: by name)")
    add("--text", metavar="COLUMN", help="the column of sentences (default: by name)")
    add("--max-length", type=int, metavar="N", help="tokens of a sentence (default: cuts one in a hundred at most)")
    add("--image-size", type=int, metavar="N", help="resize images to N x N (default: the model's or the source's)")


def _add_method(group: Any) -> None:
    add = group.add_argument
    add(
        "--method",
        dest="methods",
        action="append",
        metavar="EXPR",
        help="a sum of terms, as cdan+mcc or dann+0.1*mcc(temperature=3); may be repeated to compare "
        "several (default: jan+mcc). Terms: dann, cdan, adda, mcd, mdd, bsp, dan, jan, coral, mcc, afn, swd, bnm, "
        "mean-teacher, fixmatch, entropy-minimization, information-maximization",
    )
    add(
        "--model",
        metavar="NAME",
        help="of the catalogue, with options: lenet, lenet(kernel=5), mlp(hidden=(64,)) ...; or FILE.py:NAME, a Flax "
        "module of your own that takes num_classes (default: lenet for images up to 32 pixels, resnet8 for larger "
        "ones, else an mlp)",
    )
    add("--weights", metavar="PATH", help="pretrained weights to start from, in place of --model")
    add("--bottleneck", type=int, metavar="D", help="width of a layer before the head, 0: none (default: by method)")
    add("--flip", action="store_true", help="mirror images by chance in the views of fixmatch and mean-teacher")
    add(
        "--validator",
        metavar="NAME",
        help="what chooses the step: im, snd, bnm, certainty, dev, source_accuracy, source_likelihood, or oracle, "
        "which reads the target's test labels (default: im)",
    )
    add("--projection", metavar="NAME", help="the picture of features: auto, tsne or pca (default: auto)")


def _add_training(group: Any) -> None:
    add = group.add_argument
    add("--seeds", type=int, metavar="N", help="initialisations and data orders (default: 3)")
    add("--seed", type=int, metavar="N", help="the first seed (default: 0)")
    add("--steps", type=int, metavar="N", help="training steps of every method (default: 400)")
    add("--batch-size", type=int, metavar="N", help="examples of each domain per step (default: 32)")
    add_numerics(group)
    add("--learning-rate", type=float, metavar="R", help="of SGD at the first step (default: 0.01)")
    add("--weight-decay", type=float, metavar="R", help="of all parameters (default: 0.001)")
    add(
        "--backbone-rate",
        type=float,
        metavar="F",
        help="factor on the backbone's learning rate (default: 0.1 with --weights, else 1)",
    )


def _adapt(options: argparse.Namespace) -> int:
    settings = given(options)
    from tljax.recipes.adapting import adapt_settings, run_adapt

    print(run_adapt(adapt_settings(settings), show=not hasattr(options, "quiet")))
    return 0
