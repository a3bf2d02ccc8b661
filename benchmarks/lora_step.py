"""What a LoRA step costs beside a full one: FLOPs and memory of compiled programs, and wall time on a smaller shape.

A ViT-B, 8 images of 224 pixels (197 tokens each), LoRA of rank 8 on all the matrices of its blocks. "merged" forms
W + a b and pays for the gradient of W; "factored" does not (`tljax.peft.factored`). Programs are compiled, not run; the
times are those of a narrower model, the ways taking turns, medians.

    python benchmarks/lora_step.py [--images 8] [--rounds 7]
"""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from facts import facts

import tljax as tl
from tljax.peft import factored, lora, merge

RESULT = pathlib.Path(__file__).parent / "results" / "lora_step.json"
WHERE = ["backbone/block_*/attention/*/kernel", "backbone/block_*/mlp/*/kernel"]


def steps(model: tl.Model) -> dict[str, Callable[..., Any]]:
    """Loss and gradient of every way, as functions of (params, adapters, x, y)."""

    def loss(params: Any, x: Any, y: Any, apply: Any = model.apply) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(apply(params, x).logits), y[:, None], axis=1))

    def head_only(params: Any, adapters: Any, x: Any, y: Any) -> Any:
        head, rest = tl.split(params, "head/**")
        return jax.value_and_grad(lambda head: loss(tl.merge(head, rest), x, y))(head)

    beside = factored(model.apply)
    return {
        "full": lambda p, a, x, y: jax.value_and_grad(loss)(p, x, y),
        "LoRA merged": lambda p, a, x, y: jax.value_and_grad(lambda a: loss(merge(p, a), x, y))(a),
        "LoRA factored": lambda p, a, x, y: jax.value_and_grad(lambda a: loss(p, x, y, lambda p, x: beside(p, a, x)))(
            a
        ),
        "head only": head_only,
    }


def arguments(model: tl.Model, images: int, *, real: bool) -> tuple[Any, ...]:
    """Parameters, adapters and a batch; shapes alone unless `real`."""

    def make(key: Any) -> tuple[Any, ...]:
        x = jax.random.normal(key, (images, 224, 224, 3))
        params = model.init(key, x)
        return params, lora(params, WHERE, key=key, rank=8), x, jnp.zeros(images, jnp.int32)

    return jax.jit(make)(jax.random.key(0)) if real else jax.eval_shape(make, jax.random.key(0))


def costs(images: int) -> dict[str, dict[str, float]]:
    """GFLOP and temporary memory of each way, as XLA counts them for the compiled program."""
    model = tl.models.vit("b", 1000, patch=16)
    given, found = arguments(model, images, real=False), {}
    for name, step in steps(model).items():
        compiled = jax.jit(step).lower(*given).compile()
        found[name] = {
            "gflop": compiled.cost_analysis()["flops"] / 1e9,
            "temporary_mb": compiled.memory_analysis().temp_size_in_bytes / 1e6,
        }
    return found


def times(rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, for a ViT of width 384 with 4 blocks and 4 images."""
    model = tl.models.vit("s", 1000, patch=16, depth=4)
    given = arguments(model, 4, real=True)
    ways = {name: jax.jit(step) for name, step in steps(model).items()}
    for way in ways.values():
        jax.block_until_ready(way(*given))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(way(*given))
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found, taken = costs(options.images), times(options.rounds)
    print(f"{'step':<15}{'GFLOP':>9}{'of full':>9}{'temporary MB':>14}{'ms, small':>11}{'of full':>9}")
    for name, row in found.items():
        row["flops_of_full"] = row["gflop"] / found["full"]["gflop"]
        row["small_ms"], row["time_of_full"] = taken[name], taken[name] / taken["full"]
        print(
            f"{name:<15}{row['gflop']:>9.1f}{row['flops_of_full']:>9.2f}{row['temporary_mb']:>14.0f}"
            f"{row['small_ms']:>11.1f}{row['time_of_full']:>9.2f}"
        )
    RESULT.write_text(
        json.dumps(facts() | {"images": options.images, "rounds": options.rounds, "steps": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
