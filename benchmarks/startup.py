"""What starting costs: importing tljax, asking for help, and a command whose programs an earlier process compiled.

Every measurement is a fresh process; the ways take turns; medians of CPU seconds (user and system, of the process and
its children), which a busy machine changes least, and of wall seconds beside them.

    import      `import jax, flax, optax`; the same and `import tljax`; the same and all public names of tljax
    help        `tljax --help`, `tljax finetune --help`
    command     a small `tljax transfer` with an empty cache of compiled programs, once more with a full one, and with
                --no-compile-cache

    python benchmarks/startup.py [--rounds 7] [--commands 3]
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from facts import facts

RESULT = pathlib.Path(__file__).parent / "results" / "startup.json"
BYTE_CODE = os.path.join(tempfile.gettempdir(), f"tljax-startup-{os.getpid()}")
BARE = "import jax, flax, optax"
IMPORTS = {
    "jax, flax, optax": ["-c", BARE],
    "and tljax": ["-c", f"{BARE}; import tljax"],
    "and all its names": ["-c", f"{BARE}; import tljax; [getattr(tljax, name) for name in tljax.__all__]"],
}
HELP = {"tljax --help": ["-m", "tljax", "--help"], "tljax finetune --help": ["-m", "tljax", "finetune", "--help"]}
COMMAND = [
    "-m", "tljax", "transfer", "--model", "mlp", "--labels-per-class", "2", "--shots", "1", "--seeds", "2",
    "--steps", "8", "--pretrain-steps", "16", "--quiet",
]  # fmt: skip


def seconds(arguments: Sequence[str], **variables: str) -> dict[str, float]:
    """CPU and wall seconds of a process, whose modules have their byte code as those of an installed package have."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k and k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPYCACHEPREFIX": BYTE_CODE, "PYTHONPATH": str(RESULT.parents[2])}
    done = subprocess.run([sys.executable, *arguments], env=env | variables, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, "wall": wall}


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each way, over the rounds."""
    return {
        way: {kind: statistics.median(r[way][kind] for r in rounds) for kind in rounds[0][way]} for way in rounds[0]
    }


def commands() -> dict[str, dict[str, float]]:
    """A command with an empty cache, a full one, and without one."""
    with tempfile.TemporaryDirectory() as name:
        cache = {"XDG_CACHE_HOME": f"{name}/cache"}
        return {
            "empty cache": seconds([*COMMAND, "--run-dir", f"{name}/1"], **cache),
            "full cache": seconds([*COMMAND, "--run-dir", f"{name}/2"], **cache),
            "no cache": seconds([*COMMAND, "--run-dir", f"{name}/3", "--no-compile-cache"], **cache),
        }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--commands", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    ways = IMPORTS | HELP
    for way in ("and all its names", "tljax --help"):
        seconds(ways[way])  # files into the page cache, and their byte code
    found = medians([{way: seconds(code) for way, code in ways.items()} for _ in range(options.rounds)])
    if options.commands:
        found |= medians([commands() for _ in range(options.commands)])
    for way, row in found.items():
        print(f"{way:<24}{row['cpu']:>8.2f} s of CPU{row['wall']:>8.2f} s")
    bare = found["jax, flax, optax"]["cpu"]
    added = {way: found[way]["cpu"] / bare - 1 for way in ("and tljax", "and all its names")}
    print("added to the bare imports: " + ", ".join(f"{way} {share:.1%}" for way, share in added.items()))
    about = {"rounds": options.rounds, "commands": options.commands, "seconds": found, "added": added}
    if options.commands:
        about["full cache / no cache"] = found["full cache"]["cpu"] / found["no cache"]["cpu"]
    options.output.write_text(json.dumps(facts() | about, indent=1) + "\n")
    shutil.rmtree(BYTE_CODE)


if __name__ == "__main__":
    main()
