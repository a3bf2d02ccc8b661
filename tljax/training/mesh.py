"""Meshes: which devices hold copies of a model, which hold parts of it, and which share the work on a batch.

Three axes, of which any may have the size 1: over `data` every device has the same parameters and its own examples;
over `fsdp` it has its own examples and a part of the parameters, which are put together where they are needed; over
`tensor` a layer itself is divided. A batch is divided over `data` and `fsdp`.

Reference: Zhao et al. (2023), arXiv:2304.11277, for `fsdp`; Shoeybi et al. (2019), arXiv:1909.08053, for `tensor`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from tljax.types import TljaxError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""The axes that a batch is divided over."""


class MeshError(TljaxError):
    """A mesh that the devices do not give, or arrays that do not divide over it."""


def mesh(
    data: int | None = None, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh `[data, fsdp, tensor]` of `devices`, in an order that suits their network.

    Its axes are of the type Auto: model code stays as it is, and the compiler places what a step computes.

    Args:
      data: how many groups of devices hold the whole model; default: as many as there are devices for.
      fsdp: over how many devices the large arrays of a model and of its optimiser are divided.
      tensor: over how many devices single layers are divided; needs rules, see `layout`.
      devices: default: all, of all processes. Where the sizes want fewer, the first of them are taken.

    Raises:
      MeshError: for a size that is no whole number of 1 or more, or sizes whose product does not divide the number of
        devices.

    >>> dict(mesh(devices=jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    found = list(jax.devices() if devices is None else devices)
    if not found:
        raise MeshError("a mesh needs one device or more; devices is empty")
    for name, size in zip(AXES, (1 if data is None else data, fsdp, tensor)):
        if not _is_size(size):
            raise MeshError(
                f"{name} is over how many devices that axis goes, a whole number of 1 or more; found {size!r}"
            )
    parts = fsdp * tensor
    if data is None:
        if len(found) % parts:
            raise MeshError(_no_division(f"fsdp={fsdp} times tensor={tensor} is {parts}", parts, len(found)))
        data = len(found) // parts
    sizes, n = (data, fsdp, tensor), data * parts
    if len(found) % n:
        raise MeshError(_no_division(f"data={data} times fsdp={fsdp} times tensor={tensor} is {n}", n, len(found)))
    if n < len(found) and jax.process_count() > 1:
        raise MeshError(f"the mesh has {n} of {len(found)} devices: with several processes it must have them all")
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=found[:n])


def checked_mesh(mesh: Any) -> Mesh:
    """`mesh`, if `mesh` made it, or could have; raises `MeshError`.

    >>> checked_mesh(jax.make_mesh((1,), ("x",), (AxisType.Auto,), devices=jax.devices()[:1]))
    Traceback (most recent call last):
    tljax.training.mesh.MeshError: the mesh should have the axes data, fsdp, tensor, all of the type Auto, as
    tl.mesh() makes it; found the axes x, of the types Auto
    """
    if not isinstance(mesh, Mesh):
        raise MeshError(f"the mesh should be one, as tl.mesh(fsdp=2) makes it; found {mesh!r}")
    if mesh.axis_names != AXES or set(mesh.axis_types) != {AxisType.Auto}:
        names, kinds = ", ".join(map(str, mesh.axis_names)), ", ".join(sorted({t.name for t in mesh.axis_types}))
        raise MeshError(
            f"the mesh should have the axes {', '.join(AXES)}, all of the type Auto, as tl.mesh() makes it; found the "
            f"axes {names}, of the types {kinds}"
        )
    return mesh


def mesh_text(mesh: Mesh) -> str:
    """The sizes of a mesh, for messages.

    >>> mesh_text(mesh(devices=jax.devices()[:1]))
    'the mesh data=1, fsdp=1, tensor=1'
    """
    return f"the mesh {', '.join(f'{name}={size}' for name, size in mesh.shape.items())}"


def _is_size(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _no_division(what: str, n: int, devices: int) -> str:
    near = [d for d in range(1, devices + 1) if devices % d == 0]
    hint = f"; of {devices} devices a mesh has {', '.join(map(str, near[:-1]))} or {near[-1]}" if devices > 1 else ""
    more = " On CPU, more can be simulated: XLA_FLAGS=--xla_force_host_platform_device_count=8." if n > devices else ""
    return f"{what}, which does not divide the {devices} device{'s' * (devices > 1)}{hint}.{more}"
