"""Training steps of a ResNet launched one by one, beside the same steps in one `fori_loop`.

The reason for `tljax.training.dispatch`: on CPU, XLA puts convolutions into the form of its fast kernels at the top
level of a program only.  The two ways take turns; medians are compared; both must end with the same parameters.

    python benchmarks/conv_in_loop.py [--steps 10] [--rounds 5]
"""

import argparse
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from facts import facts

import tljax as tl
from tljax.training import make_step

RESULT = pathlib.Path(__file__).parent / "results" / "conv_in_loop.json"
SETTINGS = ((8, 8), (16, 8), (32, 8))
"""Width of a ResNet-8, and height of its images."""


def measure(width: int, size: int, steps: int, rounds: int) -> dict[str, float]:
    """Median milliseconds a step of both ways."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, size, size, 3)).astype("float32"), (np.arange(32) % 5).astype("int32")
    model = tl.models.resnet(8, 5, width=width)
    params = model.init(jax.random.key(0), x)
    step = make_step(model, tl.cross_entropy(), tl.plan().resolve(params), optax.sgd(0.01))
    batch = {"train": tl.Batch(jnp.asarray(x), jnp.asarray(y))}
    state = jax.jit(lambda p: step.init(p, batch, seed=0))(params)
    one = jax.jit(lambda s: step.update(s, batch)[0])
    loop = jax.jit(lambda s, n: jax.lax.fori_loop(0, n, lambda _, s: one(s), s))

    def launched(state):
        for _ in range(steps):
            state = one(state)
        return state

    ways = {"one_by_one": launched, "in_a_loop": lambda s: loop(s, jnp.int32(steps))}
    ends = {name: jax.block_until_ready(way(state)) for name, way in ways.items()}
    for a, b in zip(*(jax.tree.leaves(end.trainable) for end in ends.values())):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(way(state))
            times[name].append(1000 * (time.perf_counter() - start) / steps)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    print(
        f"{'ResNet-8':<22}{'one by one':>12}{'in a loop':>12}{'ratio':>8}   ms a step, batch 32, forward and backward"
    )
    for width, size in SETTINGS:
        found = measure(width, size, options.steps, options.rounds)
        ratio = found["in_a_loop"] / found["one_by_one"]
        print(
            f"{f'width {width}, {size}x{size}':<22}{found['one_by_one']:>12.2f}{found['in_a_loop']:>12.2f}{ratio:>8.1f}"
        )
        rows.append({"width": width, "size": size, **found, "ratio": ratio})
    RESULT.write_text(json.dumps(facts() | {"steps": options.steps, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
