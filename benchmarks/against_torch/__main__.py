"""Runs the cells that are missing, each in a process of its own, and prints the table."""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys

from benchmarks.against_torch.table import CELLS, SUMMARY, collected, file_of, text

NAMES = ("net", "mlp", "probe", "resnet18", "resnet50", "vit-s", "vit-b", "minilm", "bert-base")
METHODS = ("full", "head", "lora")
LORA = ("vit-s", "vit-b", "minilm", "bert-base")
ONE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def wanted(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The cells asked for: the tiny net and the probe learn as a whole only, and adapters are for transformers."""
    pairs = [(name, method) for name in options.models for method in options.methods]
    return [
        (name, method)
        for name, method in pairs
        if method == "full" or name in LORA or (method == "head" and name not in ("net", "probe"))
    ]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_torch")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--batch", type=int, help="instead of each model's own")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=pathlib.Path, default=CELLS, help="the folder of the cells")
    parser.add_argument("--again", action="store_true", help="run cells that are there already, too")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        run(options)
        return
    failed = []
    for name, method in wanted(options):
        file = file_of(options.out, name, method, options.device, options.dtype)
        if options.table or (file.exists() and not options.again):
            continue
        if subprocess.run(command(options, name, method), env=environment(options.device)).returncode:
            failed.append(f"{name} {method}")
    found = collected(options.out, options.device, options.dtype, wanted(options))
    if options.out == CELLS and found["rows"] and (options.models, options.methods) == (list(NAMES), list(METHODS)):
        suffix = "" if (options.device, options.dtype) == ("cpu", "f32") else f"_{options.device}_{options.dtype}"
        SUMMARY.with_stem(SUMMARY.stem + suffix).write_text(json.dumps(found, indent=1) + "\n")
    print(text(found))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def command(options: argparse.Namespace, name: str, method: str) -> list[str]:
    """What runs one cell."""
    given = [
        "--cell", "--models", name, "--methods", method, "--device", options.device, "--dtype", options.dtype,
        "--rounds", str(options.rounds), "--out", str(options.out),
    ]  # fmt: skip
    return [sys.executable, "-m", "benchmarks.against_torch", *given, *_batch(options)]


def _batch(options: argparse.Namespace) -> list[str]:
    return ["--batch", str(options.batch)] if options.batch else []


def environment(device: str) -> dict[str, str]:
    """One thread for XLA on CPU, and no reserved memory on GPU: both must be set before jax is imported."""
    if device == "gpu":
        return os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    flags = f"{os.environ.get('XLA_FLAGS', '')} {ONE}".strip()
    return os.environ | {"XLA_FLAGS": flags, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


def run(options: argparse.Namespace) -> None:
    """One cell, in this process."""
    from benchmarks.against_torch.cell import measure
    from benchmarks.facts import facts

    (name,), (method,) = options.models, options.methods
    shown = ["python", "-m", "benchmarks.against_torch", "--models", name, "--methods", method, *_batch(options)]
    shown += ["--rounds", str(options.rounds)]
    shown += [] if options.device == "cpu" else ["--device", options.device]
    shown += [] if options.dtype == "f32" else ["--dtype", options.dtype]
    cell = facts("torch", "transformers", "peft", command=shlex.join(shown))  # the load is that before this work
    cell |= measure(
        name, method, device=options.device, dtype=options.dtype, batch=options.batch, rounds=options.rounds
    )
    cell |= {"flags": os.environ.get("XLA_FLAGS", "")}
    if options.device == "cpu":
        cell |= {"note": "busy machine, CPU time, one thread"} if cell["machine"]["load"] > 1.5 else {}
    options.out.mkdir(parents=True, exist_ok=True)
    file = file_of(options.out, name, method, options.device, options.dtype)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(cell, indent=1) + "\n")
    part.replace(file)
    print(f"{name} {method}: {json.dumps(cell['ratios'])}", flush=True)


if __name__ == "__main__":
    main()
