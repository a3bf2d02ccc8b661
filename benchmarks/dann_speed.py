"""Seconds for 1,000 steps of DANN on MNIST -> USPS, beside the same algorithm written plainly in PyTorch.

Both have the network of `domain_digits.py`, 128 + 128 images a step drawn from data in memory, the discriminator of
1024 + 1024 units, gradient reversal with its schedule, SGD with Nesterov momentum, weight decay and a falling rate.
PyTorch runs eagerly, images channels first. Before that both take the same five steps from the same weights, without
dropout, and their losses must agree. Then blocks of steps take turns, with the same number of threads, and medians are
compared: of wall time, where tljax's is what `tl.fit` counts as training, without compilation; and of the process's CPU
time, where it is all of `tl.fit`. The latter tells more on a machine with other work.

    taskset -c 0 python benchmarks/dann_speed.py [--threads 1] [--steps 200] [--rounds 5]
    python benchmarks/dann_speed.py --together 5    # five seeds in one program beside one seed: for accelerators
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

if re.search(r"--threads[ =]1(?!\S)", " ".join(sys.argv)):  # XLA reads this once, when it is imported
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np
from domain_digits import Data, domains
from domain_methods import METHODS, TO_USPS, optimizer
from domain_network import network
from facts import add_output, facts, output_of

import tljax as tl

RESULT = pathlib.Path(__file__).parent / "results" / "dann_speed.json"
METHOD, BATCH = METHODS["dann"], 128


class Torch:
    """DANN in PyTorch, as one would write it."""

    def __init__(self, params: Any, told: Any, dropout: float):
        import torch

        nn, self.torch = torch.nn, torch
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.Dropout2d(dropout),
            nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(500, 256), nn.BatchNorm1d(256), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(256, 10)
        self.discriminator = nn.Sequential(
            nn.Linear(256, 1024), nn.BatchNorm1d(1024), nn.ReLU(),
            nn.Linear(1024, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 1),
        )  # fmt: skip
        self.all = nn.ModuleList([self.features, self.head, self.discriminator])
        self._copy(params, told)
        rate = METHOD.rate[TO_USPS]
        self.sgd = torch.optim.SGD(
            self.all.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=METHOD.decay
        )
        gamma = METHOD.gamma
        self.falling = torch.optim.lr_scheduler.LambdaLR(self.sgd, lambda t: (1 + gamma * t) ** -0.75)
        self.step_number = 0
        self.domain = torch.cat([torch.ones(BATCH), torch.zeros(BATCH)])

        class Reversed(torch.autograd.Function):
            @staticmethod
            def forward(context: Any, x: Any, strength: float) -> Any:
                context.strength = strength
                return x.view_as(x)

            @staticmethod
            def backward(context: Any, gradient: Any) -> Any:
                return -context.strength * gradient, None

        self.reversed = Reversed.apply

    def _copy(self, params: Any, told: Any) -> None:
        """Starts from the weights of the other."""
        b, d = params["backbone"], told["backbone"]
        dense = np.array(b["dense"]["kernel"]).reshape(4, 4, 50, 500).transpose(2, 0, 1, 3).reshape(800, 500)
        given = [
            *[(np.array(b[n]["kernel"]).transpose(3, 2, 0, 1), b[n]["bias"]) for n in ("conv_0", "conv_1")],
            (dense.T, b["dense"]["bias"]), _dense(b["bottleneck"]["dense"]), _norm(b["bottleneck"]["norm"]),
            _dense(params["head"]),
            _dense(d["dense_0"]), _norm(d["norm_0"]), _dense(d["dense_1"]), _norm(d["norm_1"]), _dense(told["head"]),
        ]  # fmt: skip
        layers = [layer for layer in self.all.modules() if hasattr(layer, "weight")]
        with self.torch.no_grad():
            for layer, (weight, bias) in zip(layers, given, strict=True):
                layer.weight.copy_(self.torch.tensor(np.array(weight)))
                layer.bias.copy_(self.torch.tensor(np.array(bias)))

    def step(self, x: Any, y: Any) -> Any:
        """One step on images `[2B, 1, 28, 28]` as bytes, the source's first; returns the loss."""
        f = self.torch.nn.functional
        features = self.features((x.float() / 255 - 0.5) / 0.5)
        strength = float(np.tanh(self.step_number / 2000))
        told = self.discriminator(self.reversed(features, strength))[:, 0]
        loss = f.cross_entropy(self.head(features[:BATCH]), y) + f.binary_cross_entropy_with_logits(told, self.domain)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.falling.step()
        self.step_number += 1
        return loss.detach()


def _dense(layer: Any) -> tuple[Any, Any]:
    return np.array(layer["kernel"]).T, layer["bias"]


def _norm(layer: Any) -> tuple[Any, Any]:
    return layer["scale"], layer["bias"]


def first(image: np.ndarray, torch: Any) -> Any:
    """Images channels first, for torch."""
    return torch.tensor(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


def check(data: Data, steps: int = 5) -> list[tuple[float, float]]:
    """The losses of both on the same images; raises where they differ by more than half a percent."""
    import torch

    model = network(METHOD.network, dropout=0.0)
    params = model.init(jax.random.key(0), data.source[0][:1])
    step = tl.make_step(model, METHOD.objective(TO_USPS), tl.plan().resolve(params), optimizer(METHOD, TO_USPS))
    losses, state, theirs, update = [], None, None, jax.jit(step.update)
    for i in range(steps):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        x, y, t = data.source[0][rows], data.source[1][rows], data.target[0][rows]
        batch = {"source": tl.Batch(jnp.asarray(x), jnp.asarray(y)), "target": tl.Batch(jnp.asarray(t))}
        if state is None:
            state = step.init(params, batch, seed=0)
            owned = next(part for part in state.trainable["terms"] if part)
            theirs = Torch(params, owned, dropout=0.0)
        state, metrics = update(state, batch)
        loss = theirs.step(torch.cat([first(x, torch), first(t, torch)]), torch.tensor(y).long())
        losses.append((float(metrics["loss"]), float(loss)))
    np.testing.assert_allclose(*zip(*losses), rtol=5e-3)
    return losses


def blocks(data: Data, steps: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """By library, what takes `steps` steps and tells the milliseconds of one, of wall and of CPU time."""
    import torch

    model, objective, rule = network(METHOD.network), METHOD.objective(TO_USPS), optimizer(METHOD, TO_USPS)
    params = model.init(jax.random.key(0), data.source[0][:1])
    train = {"source": data.source, "target": data.target}

    def ours() -> tuple[float, float]:
        began = time.process_time()
        result = tl.fit(
            model, params, objective, train=train, optimizer=rule, steps=steps, batch_size=BATCH, progress=False
        )
        return 1000 * result.training_seconds / steps, 1000 * (time.process_time() - began) / steps

    # Its weights do not matter for the time: any network of the same shapes does.
    batch = {n: tl.Batch(x[:BATCH], None if y is None else y[:BATCH]) for n, (x, y) in train.items()}
    started = tl.make_step(model, objective, tl.plan().resolve(params), rule).init(params, batch, seed=0)
    theirs = Torch(params, next(part for part in started.trainable["terms"] if part), dropout=0.5)
    source, target = first(data.source[0], torch), first(data.target[0], torch)
    y = torch.tensor(data.source[1]).long()

    def plain() -> tuple[float, float]:
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(steps):
            i, j = torch.randint(len(source), (BATCH,)), torch.randint(len(target), (BATCH,))
            theirs.step(torch.cat([source[i], target[j]]), y[i])
        return 1000 * (time.perf_counter() - began) / steps, 1000 * (time.process_time() - worked) / steps

    return {"tljax": ours, "torch": plain}


def together(data: Data, seeds: int, steps: int, rounds: int) -> dict[str, float]:
    """Median seconds for `steps` steps of one seed, and of several in one program."""
    model, objective, rule = network(METHOD.network), METHOD.objective(TO_USPS), optimizer(METHOD, TO_USPS)
    train = {"source": data.source, "target": data.target}
    found: dict[str, list[float]] = {"one": [], "together": []}
    for turn in range(rounds + 1):
        for name, count in (("one", 1), ("together", seeds)):
            keys = jax.random.split(jax.random.key(0), count)
            starts = jax.vmap(lambda key: model.init(key, data.source[0][:1]))(keys)
            result = tl.fit_many(
                model, starts, objective, train=train, optimizer=rule, seeds=range(count), steps=steps,
                batch_size=BATCH, progress=False,
            )  # fmt: skip
            if turn:
                found[name].append(result.training_seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both (default: all)")
    parser.add_argument("--steps", type=int, default=200, help="of a block (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each (default: 5)")
    parser.add_argument("--together", type=int, metavar="SEEDS", help="time these in one program beside one seed")
    add_output(parser, RESULT)
    options = parser.parse_args()
    usual = RESULT.with_stem(f"{RESULT.stem}_together") if options.together else RESULT
    output = output_of(parser, options, usual, "steps", "rounds")
    data, about = domains(TO_USPS), {}
    if options.together:
        about["seeds in one program"] = found = together(data, options.together, options.steps, options.rounds)
        ratio = found["together"] / found["one"]
        print(f"{options.together} seeds in one program take {ratio:.2f} of the time of one seed")
    else:
        about |= beside_torch(data, options.threads, options.steps, options.rounds)
    shown = {name: value for name, value in vars(options).items() if value is not None and name != "output"}
    about = facts("torch") | about | {"options": shown}
    output.write_text(json.dumps(about, indent=1) + "\n")


def beside_torch(data: Data, threads: int, steps: int, rounds: int) -> dict[str, Any]:
    """Checks, then measures; prints the table."""
    import torch

    torch.set_num_threads(threads)
    losses = check(data)
    ways = blocks(data, steps)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            pair = way()
            if turn:  # the first compiles
                taken[name].append(pair)
    print(
        f"DANN, MNIST -> USPS, {threads} thread(s), {rounds} blocks of {steps} steps in turn; seconds for 1,000 steps"
    )
    about: dict[str, Any] = {"threads": threads, "losses of the same steps": losses}
    for i, kind in enumerate(("wall", "cpu")):
        times = {name: [pair[i] for pair in pairs] for name, pairs in taken.items()}
        middle = {name: statistics.median(each) for name, each in times.items()}
        ratios = [b / a for a, b in zip(times["tljax"], times["torch"])]
        found = {
            "milliseconds a step": times,
            "seconds for 1000 steps": middle,
            "torch / tljax": statistics.median(ratios),
        }
        about |= found if kind == "wall" else {"cpu": found}
        print(
            f"{kind:<6} tljax {middle['tljax']:6.1f}   torch {middle['torch']:6.1f}   torch / tljax: "
            f"{statistics.median(ratios):.2f}   ({min(ratios):.2f} to {max(ratios):.2f} in pairs)"
        )
    return about


if __name__ == "__main__":
    main()
