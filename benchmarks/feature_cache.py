"""What the cache costs: features extracted into it against the bare jitted forward loop, and the time to read them.

    python benchmarks/feature_cache.py

ResNet-20 on images of CIFAR's size, 4,000 of them. Interleaved, each time with a fresh folder; medians; JSON beside
this file.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from facts import facts

import tljax as tl
from tljax.models.resnet import resnet

ROOT = pathlib.Path(__file__).parent


def seconds(call: Callable[[], Any]) -> float:
    """How long `call` takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--examples", type=int, default=4000)
    options.add_argument("--batch", type=int, default=200)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "results/feature_cache.json")
    chosen = options.parse_args()
    images = np.random.default_rng(0).normal(size=(chosen.examples, 32, 32, 3)).astype(np.float32)
    model = resnet(20, 10)
    params = model.init(jax.random.key(0), images[:1])
    forward = jax.jit(lambda params, x: model.apply(params, x, train=False)[:2])

    def bare() -> None:
        for first in range(0, chosen.examples, chosen.batch):
            jax.block_until_ready(forward(params, images[first : first + chosen.batch]))

    def extract(folder: str) -> Any:
        return tl.extract(model, params, images, cache=folder, batch_size=chosen.batch, progress=False)

    def plain() -> None:
        tl.extract(model, params, images, batch_size=chosen.batch, progress=False)

    bare()
    plain()  # both are compiled now
    times: dict[str, list[float]] = {name: [] for name in ("bare", "extract", "extract_and_keep", "read")}
    for _ in range(chosen.repeats):
        with tempfile.TemporaryDirectory() as folder:
            times["bare"].append(seconds(bare))
            times["extract"].append(seconds(plain))
            times["extract_and_keep"].append(seconds(lambda folder=folder: extract(folder)))
            times["read"].append(seconds(lambda folder=folder: np.sum(extract(folder).features)))
    overhead = [kept / plain for kept, plain in zip(times["extract_and_keep"], times["bare"])]
    result = facts() | {
        "examples": chosen.examples,
        "median_seconds": {name: statistics.median(found) for name, found in times.items()},
        "kept_over_bare": statistics.median(overhead),
        "kept_over_bare_each": overhead,
    }
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
