"""Microbatches: less memory for the same step, and their number chosen by what fits."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import HITS, examples, same

import tljax as tl
from tljax.checkpoints.run import RunError
from tljax.models import mlp
from tljax.objectives import cross_entropy
from tljax.plans import plan
from tljax.training import FitError, fit, fit_many, microbatches

X, Y = examples(128, features=8)
MODEL = mlp((64, 64), num_classes=3)
START = MODEL.init(jax.random.key(0), jnp.asarray(X))
SGD = optax.sgd(0.1)
TRAIN = functools.partial(
    fit, MODEL, START, cross_entropy(), plan(), (X, Y), optimizer=SGD, batch_size=128, progress=False
)


@pytest.fixture(scope="module")
def whole():
    return TRAIN(steps=4)


@pytest.fixture(scope="module")
def peaks(whole):
    """Bytes of a step by its number of microbatches."""
    quarter = TRAIN(steps=4, accumulate=4)
    return {1: whole.step_cost().peak_bytes, 4: quarter.step_cost().peak_bytes}


def test_microbatches_take_less_memory(peaks):
    assert peaks[4] < 0.8 * peaks[1]


@pytest.mark.slow
def test_the_fewest_that_fit_are_taken_and_the_step_is_the_same(whole, peaks):
    found = TRAIN(steps=4, accumulate="auto", memory_limit=peaks[4])
    assert found.accumulate in (2, 4)
    assert found.step_cost().peak_bytes <= peaks[4]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found.params, whole.params)
    assert TRAIN(steps=4, accumulate="auto", memory_limit=peaks[1]).accumulate == 1
    assert TRAIN(steps=4, accumulate="auto").accumulate == 1  # this machine has the memory


@pytest.mark.slow
def test_on_a_mesh_the_memory_of_each_device_counts():
    model = mlp((16,) * 6, num_classes=3)
    start, x, y = model.init(jax.random.key(0), jnp.asarray(X)), np.tile(X, (8, 1)), np.tile(Y, 8)
    run = functools.partial(
        fit, model, start, cross_entropy(), plan(), (x, y), optimizer=SGD, batch_size=1024, progress=False, steps=2
    )
    whole, on_mesh = run(), functools.partial(run, mesh=tl.mesh(data=2, fsdp=2))
    peak = {number: on_mesh(accumulate=number).step_cost().peak_bytes for number in (1, 4)}
    assert peak[4] < 0.8 * peak[1] < 0.5 * whole.step_cost().peak_bytes
    found = on_mesh(accumulate="auto", memory_limit=peak[4])
    assert found.accumulate in (2, 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found.params, whole.params)
    assert on_mesh(accumulate="auto").accumulate == 1
    with pytest.raises(FitError, match="microbatches of 4 of 'train'"):
        on_mesh(batch_size=16, accumulate="auto", memory_limit=1000)


@pytest.mark.slow
def test_what_never_fits_is_told_with_what_would_help():
    with pytest.raises(FitError, match=r"even in microbatches of 1 of 'train': it takes .* GB and 1e-06 GB"):
        TRAIN(steps=4, batch_size=2, accumulate="auto", memory_limit=1000)


@pytest.mark.slow
def test_a_run_goes_on_with_its_number(tmp_path, peaks):
    def stop(row):
        if row["step"] == 4:
            raise InterruptedError

    run = functools.partial(TRAIN, valid=(X, Y), metric=HITS, steps=8, eval_every=4, save_every=2, accumulate="auto")
    with pytest.raises(InterruptedError):
        run(run_dir=tmp_path / "a", memory_limit=peaks[4], on_log=[stop])
    number = json.loads((tmp_path / "a" / "checkpoints" / "run.json").read_text())["accumulate"]
    assert number > 1
    again = run(run_dir=tmp_path / "a")  # with more memory
    assert again.accumulate == number
    assert same(again.last, run(run_dir=tmp_path / "b", accumulate=number).last)
    with pytest.raises(RunError, match=f"accumulate: was {number}, now 1"):
        run(run_dir=tmp_path / "a", accumulate=1)


@pytest.mark.slow
def test_a_stack_is_cut_too(monkeypatch):
    monkeypatch.setattr(microbatches, "_host_memory", lambda: 1.0)
    params = jax.tree.map(lambda a: jnp.stack([a, a]), START)
    many = functools.partial(fit_many, MODEL, params, cross_entropy(), plan(), (X, Y), optimizer=SGD, seeds=[0, 1])
    with pytest.raises(FitError, match="microbatches of 1 of 'train'"):
        many(steps=1, batch_size=2, accumulate="auto", progress=False)


def test_other_values_are_refused():
    with pytest.raises(FitError, match="accumulate must be a whole number, 1 or more; found 'some'"):
        TRAIN(steps=1, accumulate="some")
    with pytest.raises(FitError, match='memory_limit is what accumulate="auto" keeps to; found accumulate=2'):
        TRAIN(steps=1, accumulate=2, memory_limit=10)
