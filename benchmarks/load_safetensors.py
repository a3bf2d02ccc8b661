"""Loading safetensors: time and peak memory of `tljax.load_weights` beside the safetensors library's own loaders.

Every measurement is a fresh process that loads one file once and looks at every leaf; loaders take turns, so that
whatever else the machine does falls on all alike.  Peak memory is the process's high-water mark above what it was
before the load.

    python benchmarks/load_safetensors.py [--gigabytes 1] [--rounds 7] [--dtype float32]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from facts import facts

RESULT = pathlib.Path(__file__).parent / "results" / "load_safetensors.json"
OURS, THEIRS = "tljax.load_weights", "safetensors.flax.load_file"

# Each gives a dict of JAX arrays or of NumPy arrays; the last line makes sure that all of it is there.
LOADERS = {
    OURS: "from tljax import checkpoints; load = lambda: checkpoints.load_weights(path)",
    f"{OURS}, then jax.device_put": (
        "from tljax import checkpoints; load = lambda: jax.device_put(checkpoints.load_weights(path))"
    ),
    THEIRS: "from safetensors import flax; load = lambda: flax.load_file(path)",
    "safetensors.numpy.load_file": "from safetensors import numpy as sn; load = lambda: sn.load_file(path)",
}
PROGRAM = """
import json, sys, time
import jax
jax.devices()
path = sys.argv[1]
{loader}

def high_water():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = high_water()
start = time.perf_counter()
tree = jax.block_until_ready(load())
seconds = time.perf_counter() - start
peak = high_water() - before
size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
print(json.dumps(dict(seconds=seconds, peak=peak, size=size)))
"""


def make_file(path: pathlib.Path, nbytes: int, dtype: str) -> None:
    """A transformer's worth of leaves: mostly matrices of 4 and 16 MB, some vectors, and one large embedding."""
    import jax.numpy as jnp
    import numpy as np

    from tljax import checkpoints

    rng = np.random.default_rng(0)
    kind = jnp.dtype(dtype)
    width = 1024 if nbytes >= 2e8 else 128
    shapes = {"embed": (max(nbytes // 10 // width // kind.itemsize, 1), width)}
    block = {
        "query": (width, width),
        "key": (width, width),
        "up": (4 * width, width),
        "down": (width, 4 * width),
        "bias": (width,),
    }
    sizes = sum(np.prod(shape) for shape in block.values()) * kind.itemsize
    for i in range(max(round(0.9 * nbytes / sizes), 1)):
        shapes.update({f"block_{i}/{name}": shape for name, shape in block.items()})
    leaves = {name: rng.standard_normal(shape, dtype=np.float32).astype(kind) for name, shape in shapes.items()}
    checkpoints.save_weights(leaves, path)


def measure(loader: str, path: pathlib.Path) -> dict[str, float]:
    """Seconds, peak bytes and size of one load in a fresh process."""
    program = PROGRAM.format(loader=LOADERS[loader])
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(gigabytes: float, rounds: int, dtype: str, folder: pathlib.Path) -> dict[str, object]:
    """Measure every loader `rounds` times, in turns."""
    path = folder / "model.safetensors"
    make_file(path, int(gigabytes * 1e9), dtype)
    size = path.stat().st_size
    times: dict[str, list[float]] = {name: [] for name in LOADERS}
    peaks: dict[str, list[float]] = {name: [] for name in LOADERS}
    for i in range(rounds + 1):  # the first round brings the file into the page cache, and is not counted
        for name in LOADERS:
            found = measure(name, path)
            if abs(found["size"] - size) > 0.01 * size + 1e5:
                raise SystemExit(f"{name} loaded {found['size']} bytes of {size}")
            if i:
                times[name].append(found["seconds"])
                peaks[name].append(found["peak"] / size)
    return facts("safetensors") | {
        "claim": "a load peaks under 1.3 times the file's size and takes at most 1.25 times safetensors.flax.load_file",
        "bytes": size,
        "dtype": dtype,
        "rounds": rounds,
        "loaders": {
            name: {
                "median_seconds": statistics.median(times[name]),
                "all_seconds": times[name],
                "median_peak_over_size": statistics.median(peaks[name]),
                "largest_peak_over_size": max(peaks[name]),
            }
            for name in LOADERS
        },
    }


def holds(result: dict) -> bool:
    """Whether the claim is true of these numbers."""
    ours, theirs = result["loaders"][OURS], result["loaders"][THEIRS]
    return ours["largest_peak_over_size"] < 1.3 and ours["median_seconds"] <= 1.25 * theirs["median_seconds"]


def table(result: dict) -> str:
    """The result as text, times relative to safetensors.flax.load_file."""
    reference = result["loaders"][THEIRS]["median_seconds"]
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"{result['bytes'] / 1e9:.2f} GB of {result['dtype']}, median of {result['rounds']}, "
        f"{machine['processor']}, {machine['cores']} cores, jax {versions['jax']}, "
        f"safetensors {versions['safetensors']}",
        f"{'loader':<40} {'seconds':>8} {'relative':>9} {'peak / size':>12}",
    ]
    for name, row in result["loaders"].items():
        seconds = row["median_seconds"]
        lines.append(f"{name:<40} {seconds:8.3f} {seconds / reference:8.2f}x {row['largest_peak_over_size']:12.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(arguments.gigabytes, arguments.rounds, arguments.dtype, pathlib.Path(folder))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"{result['claim']}: {'holds' if holds(result) else 'does not hold'}")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
