"""Where programs are compiled: ahead of their first call, once for arguments of the same shapes, side by side.

Tracing and lowering are Python, one after the other; the compiler lets go of the interpreter, so programs that were
begun compile in threads while others are traced, or while something else is done.
"""

import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp


class Compiling:
    """A program that is being compiled, or has been: calling it waits for that."""

    def __init__(self, traced: jax.stages.Traced, lowered: jax.stages.Lowered):
        self.traced = traced
        self._future: Future[jax.stages.Compiled] = _pool().submit(lowered.compile)

    def wait(self) -> jax.stages.Compiled:
        """The compiled program, once it is; raises what the compiler raised."""
        return self._future.result()

    def __call__(self, *arguments: Any) -> Any:
        return self._future.result()(*arguments)


class Ahead:
    """A function that can be compiled ahead of its calls.

    Args:
      function: of arrays, or trees of arrays.
      donate: the numbers of the arguments whose buffers the result may take over.
      options: what XLA is told for this program alone, as `jax.jit` takes it in `compiler_options`.

    >>> double = Ahead(lambda x: 2 * x)
    >>> begun = double.begin(jax.ShapeDtypeStruct((2,), jnp.float32))
    >>> begun(jnp.ones(2)).tolist(), double.begin(jnp.zeros(2)) is begun
    ([2.0, 2.0], True)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        donate: int | tuple[int, ...] = (),
        options: Mapping[str, Any] | None = None,
    ):
        self._jit = jax.jit(function, donate_argnums=donate, compiler_options=dict(options) if options else None)
        self._lowered: dict[Any, tuple[jax.stages.Traced, jax.stages.Lowered]] = {}
        self._made: dict[Any, Compiling] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The function, compiled at its first call as `jax.jit` does it: for what is called a few times in a run."""
        return self._jit(*arguments)

    def trace(self, *arguments: Any) -> jax.stages.Traced:
        """The traced function, for arguments of which shapes, dtypes and shardings matter."""
        return self._jit.trace(*shapes_of(arguments))

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """The lowered function, for such arguments; `begin` goes on from there."""
        traced = self.trace(*arguments)
        key = _key(traced, arguments)
        if key not in self._lowered:
            self._lowered = {key: (traced, traced.lower())}  # one at most: a large program has a long text
        return self._lowered[key][1]

    def begin(self, *arguments: Any) -> Compiling:
        """Begin to compile the function for such arguments, unless that was done."""
        traced = self.trace(*arguments)
        key = _key(traced, arguments)
        if key not in self._made:
            self._made[key] = Compiling(*(self._lowered.pop(key, None) or (traced, traced.lower())))
        return self._made[key]


def shapes_of(tree: Any) -> Any:
    """`tree` with shapes in the place of arrays, and of their shardings those that are not the usual one.

    >>> shapes_of({"a": jnp.zeros((2, 3))})
    {'a': ShapeDtypeStruct(shape=(2, 3), dtype=float32)}
    """
    return jax.tree.map(_shape, tree)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    usual = sharding is None or sharding.device_set == {_usual_device()}
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), sharding=None if usual else sharding)


def _key(traced: jax.stages.Traced, arguments: Any) -> Any:
    """What two programs differ in.

    JAX gives the same jaxpr for the same shapes under the same settings, such as the precision of matrix products.
    """
    placed = tuple(leaf.sharding for leaf in jax.tree.leaves(shapes_of(arguments)))
    return id(traced.jaxpr), placed, _usual_device()  # the jaxpr is kept, so that no other has its id


def _usual_device() -> Any:
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    return chosen if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)[0]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="tljax-compile")
