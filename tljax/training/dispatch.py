"""How many steps are launched: all of them in one compiled loop, or one compiled step again and again.

A loop on the device costs the host nothing and is the rule.  The exception is convolution on CPU: XLA rewrites
convolutions into the form that its fast kernels take at the top level of a program only, so that inside a loop the
training steps of a small ResNet take 3 to 9 times as long (`benchmarks/conv_in_loop.py`).  There a launch per step,
some 50 microseconds, is far cheaper.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.training.compile import Ahead, Compiling
from tljax.training.stack import Names, one_of, own_streams, put
from tljax.training.state import Run


class StepCost(NamedTuple):
    """What a training step takes, as XLA counts it; None where it does not say."""

    flops: float | None
    """Floating-point operations of one step of one run, with the optimiser's, before fusion: a function of the program
    alone, the same on every device."""
    peak_bytes: int | None
    """Memory that the compiled program needs at once: arguments, results and what lies between. Of all runs of a stack
    where one program holds them."""
    bytes_accessed: float | None = None
    """Bytes that the operations of one step read and write in the compiled program, after fusion, counted at each of
    them whether in a cache or not. Of all runs of a stack where one program holds them."""


class Steps:
    """Many steps of a run, or of each run of a stack that has not stopped; `begin` compiles what makes them."""

    def __init__(
        self,
        looped: Callable[..., Run],
        single: Callable[..., Run],
        finish: Callable[[Run], Run],
        shared: Names | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        """`looped(run, streams, n)` is the whole; `single(run, streams)` one step of one run; `finish` ends a chunk.

        `shared`: the leaves that the runs of a stack have in common; None for a single run. `options`: of the compiler.
        """
        self._looped = Ahead(looped, donate=0, options=options)
        self._single = Ahead(single, donate=0, options=options)
        self._finish = Ahead(finish, donate=0)
        self._stacked, self._names = shared is not None, shared or frozenset()
        names = self._names
        self._own = Ahead(own_streams)
        self._take = Ahead(lambda run, i: one_of(run, i, names))
        self._put = Ahead(lambda stack, run, i: put(stack, run, i, names), donate=0)

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """The looped program, lowered for `(run, streams, n)`."""
        return self._looped.lower(*arguments)

    def begin(self, run: Run, streams: Mapping[str, Any]) -> "Launch":
        """Begin to compile what makes the steps, unless that was done; only shapes are read."""
        number = jax.ShapeDtypeStruct((), jnp.int32)
        if not self._loops_slowly(run, streams):
            return InALoop(self._looped.begin(run, streams, number))
        if not self._stacked:
            return OneByOne(self._single.begin(run, streams), self._finish.begin(run))
        one, own = self._first(run, streams)
        return RunByRun(
            self._single.begin(one, own),
            self._finish.begin(one),
            self._own.begin(streams, number),
            self._take.begin(run, number),
            self._put.begin(run, one, number),
        )

    def cost(self, run: Run, streams: Mapping[str, Any]) -> StepCost:
        """The cost of a step, of which only shapes are read; nothing is compiled that was not.

        Call it after the first step: before, the program would be compiled for it.
        """
        one, own = self._first(run, streams) if self._stacked else (run, streams)
        flops = (self._single.lower(one, own).cost_analysis() or {}).get("flops")
        compiled = self.begin(run, streams).steps.wait()
        # The loop's length is an argument, so that its body counts once.
        moved = (compiled.cost_analysis() or {}).get("bytes accessed")
        return StepCost(flops, self.peak_bytes(run, streams), moved)

    def peak_bytes(self, run: Run, streams: Mapping[str, Any]) -> int | None:
        """The memory that the program needs at once, see `StepCost`; it is compiled for that, unless it was."""
        memory = self.begin(run, streams).steps.wait().memory_analysis()
        if memory is None:
            return None
        whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return whole - memory.alias_size_in_bytes

    def _first(self, run: Run, streams: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        """The first run of a stack, and its streams: their shapes."""
        first = jnp.int32(0)
        return jax.eval_shape(lambda run, s: (one_of(run, first, self._names), own_streams(s, first)), run, streams)

    def _loops_slowly(self, run: Run, streams: Mapping[str, Any]) -> bool:
        if jax.default_backend() != "cpu":
            return False
        traced = self._looped.trace(run, streams, jax.ShapeDtypeStruct((), jnp.int32))
        return any(name == "conv_general_dilated" for name in _primitives(traced.jaxpr))


class InALoop(NamedTuple):
    """All steps in one launch."""

    steps: Compiling

    def __call__(self, run: Run, streams: Mapping[str, Any], n: int) -> Run:
        return self.steps(run, streams, jax.device_put(np.int32(n)))


class OneByOne(NamedTuple):
    """A launch for each step of a run."""

    steps: Compiling
    finish: Compiling

    def __call__(self, run: Run, streams: Mapping[str, Any], n: int) -> Run:
        for _ in range(n):
            run = self.steps(run, streams)
        return self.finish(run)


class RunByRun(NamedTuple):
    """The steps of each run of a stack that has not stopped, one run after the other."""

    steps: Compiling
    finish: Compiling
    own: Compiling
    take: Compiling
    put: Compiling

    def __call__(self, stack: Run, streams: Mapping[str, Any], n: int) -> Run:
        for i in map(jax.device_put, np.flatnonzero(~np.asarray(stack.best.stopped)).astype(np.int32)):
            run = OneByOne(self.steps, self.finish)(self.take(stack, i), self.own(streams, i), n)
            stack = self.put(stack, run, i)
        return stack


Launch = InALoop | OneByOne | RunByRun
"""`launch(run, streams, n)`: `n` more steps."""


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of all operations of a jaxpr, those of inner ones too."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _primitives(inner)
