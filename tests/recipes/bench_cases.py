"""What the tests of `tljax bench` share: settings of small measurements, and ceilings that are found at once."""

import json

import pytest

from tljax.recipes.bench import bench_settings, run, run_bench
from tljax.recipes.bench.ceiling import Sizes

QUICK = {"repeats": 5, "seconds": 0.01, "features": 12}


@pytest.fixture(autouse=True, scope="module")
def small_ceilings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "usual_sizes", lambda: Sizes((64, 128), 2**20))
        patch.setattr(run, "TURN", 0.002)
        yield


def settings(**values):
    return bench_settings({name: value for name, value in {**QUICK, **values}.items() if value is not None})


def measured(folder, **values):
    """The text and the JSON of a measurement."""
    file = folder / "result.json"
    text = run_bench(settings(json=str(file), **values), show=False)
    return text, json.loads(file.read_text())
