"""A run is the same run wherever its parameters came from."""

import pathlib

import jax
import numpy as np
import optax
import pytest

import tljax as tl

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
MODEL = tl.models.mlp((4,), num_classes=2)


@pytest.mark.slow
def test_a_run_is_recognised_wherever_its_parameters_were(tmp_path: pathlib.Path) -> None:
    """Parameters that were placed on a device, as restored ones are, make the same run as fresh ones."""

    def run(start, steps_seen: list[int]):
        return tl.fit(
            MODEL, start, tl.cross_entropy(), train=(X, Y), valid=(X, Y), optimizer=optax.adam(0.01), steps=4,
            run_dir=tmp_path, progress=False, on_log=[lambda row: steps_seen.append(row["step"])],
        )  # fmt: skip

    fresh = MODEL.init(jax.random.key(0), X)
    placed = jax.device_put(fresh, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    first, second = [], []
    a, b = run(fresh, first), run(placed, second)
    assert max(first) == 4
    assert second == []
    for left, right in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params)):
        np.testing.assert_array_equal(left, right)
