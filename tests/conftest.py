"""Strict numerics, eight simulated devices, and the folder of real data."""

import collections
import gc
import importlib.metadata
import os
import pathlib
from collections.abc import Iterator

# Level 1 of the compiler saves a third of the suite's time, which is mostly compilation.
_FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
# The older code generator takes two thirds of the time; .ci/run tests a part by both. An unknown flag would end JAX.
if "TLJAX_TEST_USUAL_COMPILER" not in os.environ and importlib.metadata.version("jax").startswith("0.10."):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # commands would write into the user's cache folder

import jax  # noqa: E402  (the flags above must stand first)
import pytest  # noqa: E402

collect_ignore_glob = ["golden/*.py"]  # they made the golden values, with packages that tests do without

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)  # before what -m leaves out is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `one_in(n)` all cases but each n-th are slow."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        mark = item.get_closest_marker("one_in")
        if mark and not item.get_closest_marker("slow"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[name] += 1


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """What JAX keeps of the tests before, millions of objects, is not looked through at every later collection."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def data_dir() -> pathlib.Path:
    """The folder of real data; the test skips where there is none."""
    folder = os.environ.get("TLJAX_DATA_DIR")
    if not folder:
        pytest.skip("TLJAX_DATA_DIR is not set: no real data here")
    return pathlib.Path(folder)
