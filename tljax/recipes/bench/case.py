"""One configuration under way: set up, compiled, warm, timed turn by turn, and checked to have really trained."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tljax.checkpoints.checksum import checksum
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.memory import own_peak, peak_memory, used
from tljax.recipes.bench.rounds import Clock, Timed
from tljax.recipes.bench.settings import BenchSettings, Configuration, read_mesh
from tljax.recipes.bench.workload import Workload, load_workload
from tljax.training.dispatch import StepCost
from tljax.training.mesh import mesh
from tljax.training.options import Options
from tljax.training.prepare import prepare
from tljax.training.prepared import Prepared
from tljax.training.program import Ready
from tljax.training.state import Run

ENDLESS = 2**31 - 1
GENTLE = 0.01
"""What the updates are multiplied by: after very many steps on few examples the loss would be 0, and gradients too."""
_CACHED = "/jax/compilation_cache/cache_hits"
_PLACEMENT = re.compile(r"Sharding|SPMD|sdy|annotate_device_placement|shape_assertion")
"""Custom calls that compute nothing."""


@dataclasses.dataclass
class Case:
    """A configuration whose steps can be timed."""

    configuration: Configuration
    prepared: Prepared
    ready: Ready
    """Its program, compiled."""
    run: Run
    timed: Timed
    compile_seconds: float
    """In which its steps were traced, lowered and compiled."""
    from_cache: bool
    """Whether what they were compiled to lay in JAX's cache on disk."""
    first_step_seconds: float = 0.0
    """From the beginning of its setup until its first step was made."""
    device_peak: int | None = None
    losses: list[float] = dataclasses.field(default_factory=list)
    """The mean loss of each turn."""
    skipped: int = 0
    """Steps in float16 whose gradients were not finite, so that they changed nothing."""
    begun: tuple[int, np.ndarray] = (0, np.zeros(0, np.uint32))
    """The number of steps, and checksums of what learns, before the first turn that counts."""
    parked: Any = None
    """Run and data in the host's memory, with their shardings, while they are not on the device."""

    @property
    def examples(self) -> int:
        """Examples in a step, of all streams and views that the objective reads."""
        return self.configuration.batch * len(self.prepared.objective.streams)

    def launch(self, steps: int) -> Run:
        """Begin so many steps."""
        self.run = self.ready.advance(self.run, self.prepared.streams, steps)
        return self.run

    def look(self) -> None:
        """After a turn: note its loss, and clear the sums, as `fit` does when it logs."""
        failed = int(self.run.failed)
        if failed >= 0:
            raise BenchError(f"{self.configuration}: the loss or a parameter became NaN or infinite by step {failed}")
        made = int(self.run.summed)  # in float16 some are skipped
        if not made:
            raise BenchError(f"{self.configuration}: not one of the steps could be made in {self.configuration.dtype}")
        self.skipped += self.timed.units - made
        self.losses.append(float(self.run.sums["loss"]) / made)
        self.run = jax.block_until_ready(self.ready.clear(self.run))

    def begin(self) -> None:
        """What comes now counts."""
        self.losses.clear()
        self.skipped = 0
        self.begun = (int(self.run.state.step), checksum(self.run.state.trainable["model"]))

    def check(self) -> float:
        """The share of the leaves that learn which have moved; raises `BenchError` where the steps were not made."""
        step, before = self.begun
        moved = checksum(self.run.state.trainable["model"]) != before
        expected = step + len(self.timed.wall) * self.timed.units
        check_executed(str(self.configuration), int(self.run.state.step), expected, moved, self.losses)
        return float(np.mean(moved))

    def cost(self) -> StepCost:
        """What XLA says of a step."""
        return self.prepared.program.advance.cost(self.run, self.prepared.streams)

    def uncounted(self) -> list[str]:
        """Calls in the program of which XLA does not know the operations."""
        text = self.prepared.program.advance.lower(
            self.run, self.prepared.streams, jax.ShapeDtypeStruct((), jnp.int32)
        ).as_text()
        found = set(re.findall(r"custom_call @([\w.$]+)", text))
        return sorted(name for name in found if not _PLACEMENT.search(name))

    @property
    def devices(self) -> int:
        """Over how many devices a step goes."""
        return 1 if self.prepared.options.mesh is None else self.prepared.options.mesh.size

    def memory(self, cost: StepCost) -> dict[str, Any]:
        """The peak, and who says so."""
        return peak_memory(self.device_peak, cost.peak_bytes)

    def park(self) -> None:
        """Free the device: everything goes to the host's memory until `unpark`."""
        if self.parked is None:
            tree = (self.run, self.prepared.streams)
            self.parked = (jax.device_get(tree), jax.tree.map(lambda leaf: leaf.sharding, tree))
            for leaf in jax.tree.leaves(tree):
                leaf.delete()

    def unpark(self) -> None:
        """Everything back where it was, and there."""
        if self.parked is not None:
            self.run, self.prepared.streams = jax.device_put(*self.parked)
            self.parked = None
            jax.block_until_ready((self.run, self.prepared.streams))


def open_case(configuration: Configuration, settings: BenchSettings, clock: Clock = time.perf_counter) -> Case:
    """The configuration, compiled, with its first step made, warm, and turns of a length that can be timed.

    Raises what is wrong with it: `TljaxError`, or JAX's own where memory is short.
    """
    began, before = clock(), used()
    work = load_workload(configuration, settings.seed)
    prepared = _prepared(work, configuration)
    params = work.params if prepared.placement is None else prepared.placement.put(work.params)
    run = prepared.program.start(params, jnp.uint32(settings.seed), jnp.float32(GENTLE), prepared.streams)
    del work, params  # they were copied: only the run's own stay
    jax.block_until_ready(run)
    ready, compile_seconds, cached = _compiled(prepared, run, clock)
    case = Case(configuration, prepared, ready, run, Timed(lambda n: None), compile_seconds, cached)
    jax.block_until_ready(case.launch(1))
    case.first_step_seconds = clock() - began
    case.timed = Timed(case.launch, after=case.look)
    case.timed.settle(settings.seconds, units=settings.steps, clock=clock)
    case.device_peak = own_peak(before, used())
    case.begin()
    return case


def _compiled(prepared: Prepared, run: Run, clock: Clock) -> tuple[Ready, float, bool]:
    """The program, the seconds that this took, and whether it lay in the cache on disk."""
    heard: list[str] = []
    hear: Callable[..., None] = lambda event, **_: heard.append(event)  # noqa: E731
    jax.monitoring.register_event_listener(hear)
    try:
        began = clock()
        ready = prepared.program.begin(run, prepared.streams, None)
        ready.wait()
        return ready, clock() - began, _CACHED in heard
    finally:
        jax.monitoring.unregister_event_listener(hear)


def _prepared(work: Workload, configuration: Configuration) -> Prepared:
    c, devices = configuration, mesh_of(configuration.mesh)
    how = {"precision": c.dtype, "mesh": devices, **work.options}
    options = Options(steps=ENDLESS, batch_size=c.batch, progress=False, **how)
    return prepare(work.model, work.params, work.objective, work.plan, work.train, None, work.optimizer, options)


def mesh_of(text: str) -> Mesh | None:
    """The mesh that `text` names; None for the default device. Raises `MeshError` where the devices do not give it.

    >>> mesh_of("data=1").size
    1
    """
    sizes = read_mesh(text)
    return mesh(sizes.get("data"), sizes.get("fsdp", 1), sizes.get("tensor", 1)) if sizes else None


def check_executed(what: str, step: int, expected: int, moved: Sequence[Any], losses: Sequence[float]) -> None:
    """Raise `BenchError` unless so many steps were made, most of what learns has moved, and the loss with it.

    >>> check_executed("mlp", 20, 20, [True, True, False], [2.0, 1.5])
    >>> check_executed("mlp", 20, 20, [False, False], [2.0, 1.5])
    Traceback (most recent call last):
    tljax.recipes.bench.error.BenchError: mlp: only 0 of 2 leaves that learn have moved; the steps were not made
    """
    if step != expected:
        raise BenchError(f"{what}: {expected} steps were launched and {step} were made")
    if 2 * int(np.sum(moved)) < len(moved) or not len(moved):
        raise BenchError(
            f"{what}: only {int(np.sum(moved))} of {len(moved)} leaves that learn have moved; the steps were not made"
        )
    if not np.all(np.isfinite(losses)):
        raise BenchError(f"{what}: the loss became NaN or infinite")
    if len(set(losses)) < 2:
        raise BenchError(f"{what}: the loss stayed at {losses[0]:.6g}; the steps were not made, or change nothing")
