"""Where everything of a run lies on a mesh, and what of it is put together to compute.

At rest a parameter is divided as the layout says, and so is whatever has its name and shape: the optimiser's state,
averages, the best parameters. To compute, what is divided over the axes of the batch is put together, since every
device has examples of its own; what is divided over `tensor` stays so. The gradient goes the other way: it is summed
over the examples of all devices, and divided again.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tljax.training.mesh import BATCH_AXES
from tljax.tree import map_named
from tljax.tree.paths import dtype_of, flatten_named
from tljax.types import Array, Output, Params

Tree = TypeVar("Tree")
_WHOLE = PartitionSpec()
_FREE = PartitionSpec.UNCONSTRAINED


@dataclasses.dataclass(frozen=True)
class Placement:
    """A layout for one parameter tree on one mesh. Equal placements give equal programs."""

    mesh: Mesh
    leaves: tuple[tuple[str, tuple[int, ...], PartitionSpec], ...]
    """Name, shape and division of every parameter."""
    above: float
    """From what size in bytes on other arrays are divided over `fsdp`."""

    @property
    def examples(self) -> int:
        """How many parts a batch has: its size is a multiple of this."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    @functools.cached_property
    def _by_name(self) -> Mapping[str, tuple[tuple[int, ...], PartitionSpec]]:
        return {name: (shape, spec) for name, shape, spec in self.leaves}

    def spec(self, name: str, leaf: Any) -> PartitionSpec:
        """The division of the leaf called `name` of any tree: that of the parameter by whose name it ends, as the
        optimiser's ``0/mu/model/head/kernel`` does, if it has its shape too.

        >>> import jax
        >>> from tljax.training.layout import layout, shard
        >>> from tljax.training.mesh import mesh
        >>> one, params = mesh(devices=jax.devices()[:1]), {"head": {"kernel": np.zeros((2, 2))}}
        >>> layout(shard("head/kernel", ("fsdp",))).resolve(params, one).spec("0/mu/head/kernel", np.zeros((2, 2)))
        P('fsdp',)
        """
        parts = name.split("/")
        for i in range(len(parts)):
            shape, spec = self._by_name.get("/".join(parts[i:]), (None, _WHOLE))
            if shape == np.shape(leaf):
                return spec
        return usual(leaf, self.mesh, self.above)

    def shardings(self, tree: Any) -> Any:
        """The `NamedSharding` of every leaf of `tree`: parameters, a `Run`, the optimiser's state."""
        names, leaves, treedef = flatten_named(tree)
        return jax.tree.unflatten(
            treedef, [NamedSharding(self.mesh, self.spec(name, leaf)) for name, leaf in zip(names, leaves)]
        )

    def put(self, tree: Tree) -> Tree:
        """`tree` on the devices, every leaf where it belongs."""
        return jax.tree.map(_placed, tree, self.shardings(tree))

    def everywhere(self, tree: Tree) -> Tree:
        """`tree`, such as data, whole on every device."""
        return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(self.mesh, _WHOLE)), tree)

    def divided(self, tree: Tree) -> Tree:
        """The leaves of a batch, `[B, ...]`, on the devices, each with its own examples."""
        return jax.tree.map(lambda leaf: _placed(leaf, self._batch), tree)

    def rows(self, size: int) -> np.ndarray:
        """Which examples of a batch of `size` the devices of this process hold, in rising order: all, if it is alone.

        >>> import jax
        >>> from tljax.training.layout import layout
        >>> from tljax.training.mesh import mesh
        >>> layout().resolve({}, mesh(devices=jax.devices()[:1])).rows(3).tolist()
        [0, 1, 2]
        """
        places = self._batch.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[place] for place in places]))

    def assembled(self, tree: Tree, rows: np.ndarray, size: int) -> Tree:
        """A batch of `size` on the devices, of which `tree` has the `rows` of this process."""

        def one(leaf: Any) -> jax.Array:
            def part(index: Any) -> Any:
                return leaf[np.searchsorted(rows, np.arange(size)[index[0]])]

            return jax.make_array_from_callback((size, *leaf.shape[1:]), self._batch, part)

        return jax.tree.map(one, tree)

    @property
    def _batch(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    def filled(self, tree: Tree) -> Tree:
        """Evaluation data, `[batches, B, ...]`, with zeros, which are their weights too, up to a B that divides."""

        def one(leaf: Any) -> Any:
            host = np.asarray(leaf)
            more = -host.shape[1] % self.examples
            return np.concatenate([host, np.zeros((len(host), more, *host.shape[2:]), host.dtype)], axis=1)

        return jax.tree.map(one, tree)

    def hold(self, tree: Tree) -> Tree:
        """Within a program: `tree` divided as it is at rest."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def spread(self, tree: Tree) -> Tree:
        """Within a program: the leaves of a batch, `[B, ...]`, divided; one that does not divide stays as it is."""

        def one(leaf: Any) -> Any:
            if not jnp.ndim(leaf) or leaf.shape[0] % self.examples:
                return leaf
            spec = PartitionSpec(BATCH_AXES, *[_FREE] * (leaf.ndim - 1))
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

        return jax.tree.map(one, tree)

    def gathered(self, params: Params) -> Params:
        """Within a program: the parameters as they are computed with."""

        def one(name: str, leaf: Any) -> Any:
            spec = self.spec(name, leaf)
            whole = PartitionSpec(*map(_without_batch, spec))
            return leaf if whole == spec else _gathered(leaf, *(NamedSharding(self.mesh, s) for s in (spec, whole)))

        return map_named(one, params)


def usual(leaf: Any, mesh: Mesh, above: float) -> PartitionSpec:
    """How an array that no rule speaks of is divided: over `fsdp`, if it is large and divides.

    >>> import jax
    >>> from tljax.training.mesh import mesh
    >>> usual(np.zeros((100, 300)), mesh(devices=jax.devices()[:1]), 1000)
    P()
    """
    shape, parts = np.shape(leaf), mesh.shape["fsdp"]
    fitting = [i for i, n in enumerate(shape) if n % parts == 0]
    if parts == 1 or not fitting or math.prod(shape) * dtype_of(leaf).itemsize <= above:
        return _WHOLE
    axis = max(fitting, key=lambda i: shape[i])  # of equals the first, whose parts lie together in memory
    return PartitionSpec(*[None] * axis, "fsdp")


@functools.lru_cache(maxsize=64)  # equal arguments give the same function, so that what is compiled for it is found
def placed_apply(apply: Callable[..., Output], placement: Placement) -> Callable[..., Output]:
    """`apply` of a model with its parameters put together, its batch and its outputs divided.

    >>> import jax
    >>> from tljax.models import mlp
    >>> from tljax.training.layout import layout
    >>> from tljax.training.mesh import mesh
    >>> model, x = mlp((4,), num_classes=2), jnp.ones((4, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> placed_apply(model.apply, layout().resolve(params, mesh(devices=jax.devices()[:1])))(params, x).logits.shape
    (4, 2)
    """

    def applied(params: Params, x: Any, **options: Any) -> Output:
        output = apply(placement.gathered(params), placement.spread(x), **options)
        logits, features = placement.spread((output.logits, output.features))
        return output._replace(logits=logits, features=features)

    return applied


def _placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.jit(lambda a: a, out_shardings=sharding)(leaf)
    host = np.asarray(leaf)  # the same in every process; each takes the parts of its devices
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _without_batch(entry: Any) -> Any:
    """An entry of a division without the axes of the batch."""
    kept = tuple(axis for axis in axes_of(entry) if axis not in BATCH_AXES)
    return kept[0] if len(kept) == 1 else kept or None


def axes_of(entry: Any) -> tuple[str, ...]:
    """The axes of the mesh in an entry of a division.

    >>> axes_of(None), axes_of("fsdp"), axes_of(("data", "fsdp"))
    ((), ('fsdp',), ('data', 'fsdp'))
    """
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(leaf: Array, at_rest: NamedSharding, whole: NamedSharding) -> Array:
    """`leaf` put together, and its gradient divided: left to itself the compiler may move activations instead."""
    return jax.lax.with_sharding_constraint(leaf, whole)


def _forward(leaf: Array, at_rest: NamedSharding, whole: NamedSharding) -> tuple[Array, None]:
    return _gathered(leaf, at_rest, whole), None


def _backward(at_rest: NamedSharding, whole: NamedSharding, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(gradient, at_rest),)


_gathered.defvjp(_forward, _backward)
