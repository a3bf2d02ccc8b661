"""`tljax bench`."""

import argparse
from typing import Any

from tljax.commands.options import HelpFormatter, add_debug, expressions, given, integers, words


def add_bench(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="time training steps beside what the device can do",
        description="Time the training step of a model, a method and a batch on random data, in rounds that alternate "
        "with matrix products and with streaming through memory, so that the step is told as a share of what the "
        "device did in the same minutes. Lists make the product of all.",
        epilog="METHOD is one of tljax finetune: full, lora, dora, ia3, bitfit, norm-only ...; head-only, where the "
        "frozen backbone runs in every step; linear-probe, on features computed before; or one of tljax adapt, as dann "
        "or cdan+mcc. What fails, as for want of memory, becomes a row with its reason.",
        formatter_class=HelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_configurations(parser.add_argument_group("what is timed"))
    _add_measurement(parser.add_argument_group("how"))
    parser.set_defaults(command=_bench)


def _add_configurations(group: Any) -> None:
    add = group.add_argument
    add("--model", type=expressions, metavar="NAME,...", help="of the catalogue, as vit-s16 or mlp(hidden=(64,)); or "
        "a folder or a file of pretrained weights")  # fmt: skip
    add("--method", "--methods", dest="method", type=words, metavar="METHOD,...", help="what learns (default: full)")
    add("--batch", type=integers, metavar="N,...", help="examples a step, of each stream (default: 32)")
    add("--dtype", type=words, metavar="NAME,...", help="float32, bfloat16, float16 (default: float32)")
    add("--mesh", metavar="AXIS=N,...", help="devices, as data=8 or data=4,fsdp=2 (default: one device)")
    add("--sweep", action="store_true", help="where no methods, batches or dtypes are given, take several")
    add("--classes", type=int, metavar="N", help="classes of the head (default: 10)")
    add("--image-size", type=int, metavar="N", help="images of N x N (default: the model's)")
    add("--seq-len", type=int, metavar="N", help="tokens of a sentence (default: 128)")
    add("--features", type=int, metavar="N", help="numbers in an example of an mlp (default: 784)")
    add("--rank", type=int, metavar="R", help="of low-rank adapters (default: 8)")
    add("--alpha", type=float, metavar="A", help="of low-rank adapters: their scale is A / R (default: 16)")
    add("--target", type=words, metavar="GLOB,...", help="the leaves that get adapters (default: by method)")


def _add_measurement(group: Any) -> None:
    add = group.add_argument
    add("--repeats", type=int, metavar="N", help="times that each configuration is timed, 5 or more (default: 15)")
    add("--seconds", type=float, metavar="S", help="that each of them lasts at least (default: 0.3)")
    add("--steps", type=int, metavar="N", help="in each of them (default: as many as last --seconds)")
    add("--seed", type=int, metavar="N", help="of parameters and data (default: 0)")
    add(
        "--compile-cache",
        dest="no_compile_cache",
        action="store_false",
        default=True,
        help="keep compiled programs, and use those that were kept, as other commands do (default: compile anew)",
    )
    add("--json", metavar="FILE", help="write all that was measured, and where and with what")
    add("--trace", metavar="DIR", help="write a profile of a few steps, for TensorBoard, XProf or Perfetto")
    add("--compare", nargs=2, metavar=("A.json", "B.json"), help="measure nothing: compare two such files")
    add("--quiet", action="store_true", help="print the result only")
    add_debug(group)


def _bench(options: argparse.Namespace) -> int:
    settings = given(options)
    pair = settings.pop("compare", None)
    if pair is not None:
        return _compare(pair, settings)
    from tljax.recipes.bench import bench_settings, run_bench

    print(run_bench(bench_settings(settings), show=not hasattr(options, "quiet"), own_process=True))
    return 0


def _compare(pair: list[str], settings: dict[str, Any]) -> int:
    from tljax.recipes.bench import compare_files
    from tljax.recipes.options import SettingsError

    if settings:
        raise SettingsError(f"--compare measures nothing; leave out {', '.join(settings)}")
    print(compare_files(*pair))
    return 0
