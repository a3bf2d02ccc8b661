"""Meshes of the eight simulated devices, and what is said where they do not fit."""

import jax
import pytest
from jax.sharding import AxisType

import tljax as tl
from tljax.training import MeshError

DEVICES = jax.devices()[:8]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((), (8, 1, 1)),
        ((None, 4), (2, 4, 1)),
        ((None, 2, 2), (2, 2, 2)),
        ((1, 8), (1, 8, 1)),
        ((4,), (4, 1, 1)),
        ((1,), (1, 1, 1)),
    ],
)
def test_sizes_become_axes(sizes, shape):
    mesh = tl.mesh(*sizes, devices=DEVICES)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) <= set(DEVICES)


def test_devices_may_be_chosen():
    assert set(tl.mesh(fsdp=2, devices=DEVICES[4:6]).devices.flat) == set(DEVICES[4:6])
    assert tl.mesh(devices=DEVICES) == tl.mesh(8, devices=DEVICES)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, r"data=3 times fsdp=1 times tensor=1 is 3, which does not divide the 8 devices; .* 1, 2, 4 or 8"),
        ({"fsdp": 3}, "fsdp=3 times tensor=1 is 3, which does not divide the 8 devices"),
        ({"data": 16}, "is 16, which does not divide the 8 devices.*device_count"),
        ({"fsdp": 0}, "fsdp is over how many devices that axis goes, a whole number of 1 or more; found 0"),
        ({"tensor": 2.0}, "tensor is .*found 2.0"),
        ({"data": True}, "data is .*found True"),
        ({"data": -1}, "data is .*found -1"),
    ],
)
def test_sizes_that_do_not_fit_are_told(sizes, message):
    with pytest.raises(MeshError, match=message):
        tl.mesh(**sizes, devices=DEVICES)


def test_no_devices():
    with pytest.raises(MeshError, match="devices is empty"):
        tl.mesh(devices=[])
