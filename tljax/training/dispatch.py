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
    """`steps(run, streams, n)`: `n` more steps of a run, or of each run of a stack that has not stopped."""

    def __init__(
        self,
        looped: Callable[..., Run],
        single: Callable[..., Run],
        finish: Callable[[Run], Run],
        shared: Names | None = None,
    ):
        """`looped(run, streams, n)` is the whole; `single(run, streams)` one step of one run; `finish` ends a chunk.

        `shared`: the leaves that the runs of a stack have in common; None for a single run.
        """
        self._looped = jax.jit(looped, donate_argnums=0)
        self._single = jax.jit(single, donate_argnums=0)
        self._finish = jax.jit(finish, donate_argnums=0)
        self._stacked, self._names = shared is not None, shared or frozenset()
        names = self._names
        self._own = jax.jit(own_streams)
        self._take = jax.jit(lambda run, i: one_of(run, i, names))
        self._put = jax.jit(lambda stack, run, i: put(stack, run, i, names), donate_argnums=0)
        self._slow_loop: bool | None = None

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """The looped program, lowered for `(run, streams, n)`."""
        return self._looped.lower(*arguments)

    def cost(self, run: Run, streams: Mapping[str, Any]) -> StepCost:
        """The cost of a step, of which only shapes are read; nothing is compiled that was not.

        Call it after the first step: before, the program would be compiled for it.
        """
        one, own = (jax.eval_shape(self._first, run, streams)) if self._stacked else (run, streams)
        single = self._single.lower(one, own)
        used = single if self._slow_loop else self._looped.lower(run, streams, jax.ShapeDtypeStruct((), jnp.int32))
        flops, compiled = (single.cost_analysis() or {}).get("flops"), used.compile()
        # The loop's length is an argument, so that its body counts once.
        moved, memory = (compiled.cost_analysis() or {}).get("bytes accessed"), compiled.memory_analysis()
        if memory is None:
            return StepCost(flops, None, moved)
        whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        return StepCost(flops, whole - memory.alias_size_in_bytes, moved)

    def _first(self, run: Run, streams: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        """The first run of a stack, and its streams."""
        return one_of(run, 0, self._names), own_streams(streams, jnp.int32(0))

    def __call__(self, run: Run, streams: Mapping[str, Any], n: Any) -> Run:
        if self._slow_loop is None:
            self._slow_loop = jax.default_backend() == "cpu" and self._convolves(run, streams)
        if not self._slow_loop:
            return self._looped(run, streams, jnp.int32(n))
        if not self._stacked:
            return self._one_by_one(run, streams, int(n))
        for i in np.flatnonzero(~np.asarray(run.best.stopped)):
            mine = self._one_by_one(self._take(run, i), self._own(streams, i), int(n))
            run = self._put(run, mine, i)
        return run

    def _one_by_one(self, run: Run, streams: Mapping[str, Any], n: int) -> Run:
        for _ in range(n):
            run = self._single(run, streams)
        return self._finish(run)

    def _convolves(self, run: Run, streams: Mapping[str, Any]) -> bool:
        traced = self._looped.trace(run, streams, jnp.int32(1))
        return any(name == "conv_general_dilated" for name in _primitives(traced.jaxpr))


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of all operations of a jaxpr, those of inner ones too."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _primitives(inner)
