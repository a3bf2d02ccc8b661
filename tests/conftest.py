"""Strict numerics, eight simulated devices, and the folder of real data."""

import os
import pathlib

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def data_dir() -> pathlib.Path:
    """The folder of real data; the test skips where there is none."""
    folder = os.environ.get("TLJAX_DATA_DIR")
    if not folder:
        pytest.skip("TLJAX_DATA_DIR is not set: no real data here")
    return pathlib.Path(folder)
