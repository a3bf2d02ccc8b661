"""The gradient of `tljax.models.max_pool` beside that of Flax's and torch's, and what it makes of whole models.

One thread of a CPU. The ways take turns; medians of the process's CPU time are compared. Gradients must agree: with
Flax's in every bit for the pools, to rounding for the models, which a ResNet-50 of random weights enlarges to percents.

    python benchmarks/max_pool.py [--rounds 15]
"""

import argparse
import importlib
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from facts import facts

import tljax as tl

RESULT = pathlib.Path(__file__).parent / "results" / "max_pool.json"
POOLS = {
    "2x2": ((64, 28, 28, 32), 2, 2, 0),
    "2x2, small": ((64, 14, 14, 64), 2, 2, 0),
    "3x3 with stride 2": ((8, 112, 112, 64), 3, 2, 1),
    "3x3 with stride 2, small": ((32, 16, 16, 64), 3, 2, 1),
}
"""Shape, window, stride and padding."""
MODELS = {
    "LeNet": (tl.models.lenet, "lenet", (64, 28, 28, 1)),
    "LeNet of 5x5, 500 features": (lambda: tl.models.lenet(kernel=5, hidden=500), "lenet", (64, 28, 28, 1)),
    "ResNet-18": (lambda: tl.models.imagenet_resnet(18), "imagenet_resnet", (4, 224, 224, 3)),
    "ResNet-50": (lambda: tl.models.imagenet_resnet(50), "imagenet_resnet", (4, 224, 224, 3)),
}
"""The model, its module, and the shape of its images."""
Way = Callable[[], Any]


def pools(shape: tuple[int, ...], size: int, stride: int, pad: int) -> dict[str, Way]:
    """The gradient of a weighted sum of a pool's outputs."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    maps = jnp.asarray(x)
    how = (size, size), (stride, stride), ((pad, pad),) * 2
    weights = jnp.asarray(rng.normal(size=tl.models.max_pool(x, *how).shape), jnp.float32)

    def gradient(pool: Callable[..., Any]) -> Way:
        run = jax.jit(jax.grad(lambda x, weights: (pool(x, *how) * weights).sum()))
        return lambda: run(maps, weights).block_until_ready()

    first = torch.tensor(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    given = torch.tensor(np.asarray(weights).transpose(0, 3, 1, 2).copy())

    def torchs() -> Any:
        first.grad = None
        torch.nn.functional.max_pool2d(first, size, stride, pad).backward(given)
        return first.grad.numpy().transpose(0, 2, 3, 1)

    ways = {"tljax": gradient(tl.models.max_pool), "flax": gradient(nn.max_pool), "torch": torchs}
    np.testing.assert_array_equal(ways["tljax"](), ways["flax"]())
    np.testing.assert_allclose(ways["tljax"](), ways["torch"](), rtol=1e-6)
    return ways


def models(build: Callable[[], tl.Model], name: str, shape: tuple[int, ...]) -> dict[str, Way]:
    """The gradient of a model's loss, with its pool and with Flax's in the place of that."""
    module: Any = importlib.import_module(f"tljax.models.{name}")
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = build().init(jax.random.key(0), x)

    def gradient(pool: Callable[..., Any]) -> Way:
        model, own = build(), module.max_pool

        def loss(params: Any, x: Any) -> Any:
            return jnp.sum(jnp.sin(model.apply(params, x, train=True, key=jax.random.key(0)).logits))

        module.max_pool = pool
        run = jax.jit(jax.grad(loss)).lower(params, x).compile()
        module.max_pool = own
        return lambda: jax.block_until_ready(run(params, x))

    ways = {"tljax": gradient(tl.models.max_pool), "flax": gradient(nn.max_pool)}
    ours, theirs = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(way())]) for way in ways.values())
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)
    return ways


def medians(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if turn:
                taken[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    print(f"{'gradient, ms on one core':<28}{'maps':<20}{'tljax':>9}{'flax':>9}{'torch':>9}{'flax / tljax':>14}")
    for made, cases in ((pools, POOLS), (models, MODELS)):
        for name, case in cases.items():
            found = medians(made(*case), options.rounds)
            shape = "x".join(map(str, next(part for part in case if isinstance(part, tuple))))
            ratio = found["flax"] / found["tljax"]
            torchs = f"{found['torch']:9.2f}" if "torch" in found else f"{'':9}"
            print(f"{name:<28}{shape:<20}{found['tljax']:>9.2f}{found['flax']:>9.2f}{torchs}{ratio:>14.1f}", flush=True)
            rows[name] = {"shape": shape, "milliseconds": found, "flax / tljax": ratio}
    RESULT.write_text(json.dumps(facts("torch") | {"rounds": options.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
