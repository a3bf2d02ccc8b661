"""One cell: the losses of both sides compared, then their times in turns."""

import functools
import statistics
import time
from typing import Any

import jax
import numpy as np
import optax
import torch

import tljax as tl
from benchmarks.against_torch.cases import CASES, Case, data
from benchmarks.against_torch.networks import network
from benchmarks.against_torch.theirs import DECAY, RATE, Torch

TOLERANCES = {"f32": (3e-5, 1e-4, 1e-3, 3e-3), "bf16": (1e-2, 2e-2, 4e-2, 8e-2)}
"""Of the first losses: where a gradient is next to nothing, rounding is enough for Adam to turn round."""
SKIPPED = 3
"""Rounds at the start that do not count: they compile, and `fit` tries how many steps it may launch at once."""


def measure(name: str, method: str, *, device: str, dtype: str, batch: int | None, rounds: int) -> dict[str, Any]:
    """The cell of a model and a method."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    case, place = CASES[name], "cuda" if device == "gpu" else "cpu"
    batch = batch or (case.batch if device == "cpu" else case.gpu_batch)
    x, y = data(case, name, 8 * batch)
    ours = functools.partial(_fit, *_ours(case, method, x), (x, y), batch, dtype)
    model, base, adapters = _start(case, method, x)
    order = _order(batch, len(y), 4096)

    def theirs(compile: bool) -> Torch:
        net = network(case, name, model, base, adapters)
        return Torch(net, case, method, x, y, order, device=place, dtype=dtype, compile=compile)

    first, *later = TOLERANCES[dtype]
    losses = _check(ours, theirs, (first, *(case.slack * t for t in later)))
    steps = case.steps if device == "cpu" else max(10, case.steps)
    times, result = _timed(ours, {"eager": theirs(False), "compile": theirs(True)}, steps, rounds)
    clock = "cpu" if device == "cpu" else "wall"
    return {
        "model": name, "method": method, "batch": batch, "dtype": dtype, "device": device, "steps of a block": steps,
        "compared": "CPU time of the process, one thread each" if clock == "cpu" else "time on the clock",
        "ms a step": {side: {c: statistics.median(v[c]) for c in v} for side, v in times.items()},
        "all ms a step": times, "ratios": _ratios(times, clock), "losses of the same steps": losses,
        "gflop a step": (result.step_cost().flops or 0.0) / 1e9,
    }  # fmt: skip


def _start(case: Case, method: str, x: Any) -> tuple[tl.Model, Any, Any]:
    """The model, its parameters, and for LoRA the adapters, none of which are zero."""
    model, example = case.build(), jax.tree.map(lambda part: part[:1], x)
    params = jax.jit(model.init)(jax.random.key(0), example)
    if method != "lora":
        return model, params, None
    where = "backbone/block_*/attention/{query,value}/kernel"
    adapters = tl.peft.lora(params, where, key=jax.random.key(1), rank=8, alpha=16.0)
    return model, params, adapters


def _ours(case: Case, method: str, x: Any) -> tuple[tl.Model, Any, tl.Plan]:
    model, params, adapters = _start(case, method, x)
    if method == "lora":
        adapted, params = tl.peft.attach(model, params, adapters)
        return adapted, params, tl.plan(tl.adapters_only(), tl.unfreeze("head/**"))
    return model, params, tl.linear_probe() if method == "head" else tl.plan()


_OBJECTIVE = tl.cross_entropy()
_ADAMW = optax.adamw(RATE, weight_decay=DECAY)


def _fit(model: tl.Model, params: Any, plan: tl.Plan, train: Any, batch: int, dtype: str, **options: Any) -> Any:
    how = {} if dtype == "f32" else {"precision": "bfloat16"}
    return tl.fit(
        model, params, _OBJECTIVE, plan, train, optimizer=_ADAMW, batch_size=batch, progress=False, **how, **options
    )


def _order(batch: int, count: int, steps: int) -> np.ndarray:
    """The rows that `fit` draws at each step, `[steps, batch]`."""
    seed = tl.data.fold_seed(np.uint32(0), 0)
    return np.stack([np.asarray(tl.data.batch_indices(int(seed), t, batch, count, np)) for t in range(steps)])


def _check(ours: Any, theirs: Any, tolerances: tuple[float, ...]) -> dict[str, list[float]]:
    """The first losses of all three, which must agree."""
    history = ours(steps=len(tolerances), log_every=1).history
    found = {"tljax": [row["loss"] for row in history]}
    for way, compile in (("eager", False), ("compile", True)):
        side = theirs(compile)
        found[way] = [side.steps(1) for _ in tolerances]
        for other, own, tolerance in zip(found[way], found["tljax"], tolerances):
            np.testing.assert_allclose(other, own, rtol=tolerance, err_msg=way)
    return found


def _timed(ours: Any, theirs: dict[str, Torch], steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    """Milliseconds a step of every side, of blocks in turns: torch's run where `fit` tells of its log."""
    times: dict[str, dict[str, list[float]]] = {way: {"cpu": [], "wall": []} for way in ("tljax", *theirs)}

    def note(way: str, began: tuple[float, float]) -> None:
        for name, start, end in zip(("cpu", "wall"), began, _now()):
            times[way][name].append(1000 * (end - start) / steps)

    marks = [_now()]

    def turn(row: dict[str, Any]) -> None:
        jax.block_until_ready(jax.live_arrays())  # of the block that is under way, where fit runs ahead of its log
        note("tljax", marks[-1])
        for way, side in theirs.items():
            began = _now()
            side.steps(steps)
            note(way, began)
        marks.append(_now())

    # From one turn's end to the next one's beginning is one block, then: the next is launched, and waited for here.
    result = ours(steps=(rounds + SKIPPED + 1) * steps, log_every=steps, on_log=[turn])
    part = slice(SKIPPED, -1)  # at the last turn there is no next block
    counted = {way: {name: values[part] for name, values in both.items()} for way, both in times.items()}
    return counted, result


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _ratios(times: dict[str, Any], clock: str) -> dict[str, Any]:
    """torch's time over tljax's, block by block: the median and the extremes."""
    found = {}
    for way in ("eager", "compile"):
        pairs = [theirs / ours for ours, theirs in zip(times["tljax"][clock], times[way][clock])]
        found[way] = {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}
    return found
