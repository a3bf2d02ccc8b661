"""What `tljax bench` refuses to time, or to tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_cases import settings, small_ceilings

from tljax.models import mlp
from tljax.recipes.bench import bench_settings, run, run_bench, workload
from tljax.recipes.bench.case import Case, check_executed, open_case
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.inputs import check_parameters
from tljax.recipes.bench.workload import load_workload
from tljax.recipes.options import SettingsError

__all__ = ["small_ceilings"]


def test_constant_weights_are_refused():
    model = mlp((16,), num_classes=3)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), jnp.ones((1, 12))))
    with pytest.raises(BenchError, match="259 of 259 parameters are constant in their leaf, as 'backbone"):
        check_parameters(params, "mlp")
    check_parameters(model.init(jax.random.key(0), jnp.ones((1, 12))), "mlp")


@pytest.mark.slow
def test_constant_inputs_are_refused(monkeypatch):
    monkeypatch.setattr(workload, "random_examples", lambda key, like, n, tokens: jnp.zeros((n, *like.shape[1:])))
    with pytest.raises(BenchError, match="inputs of the stream 'train' are 0 everywhere"):
        run_bench(settings(model=["mlp"]), show=False)


@pytest.mark.slow
def test_a_run_that_failed_is_refused():
    few = settings(model=["mlp"], steps=1)
    case = open_case(few.configurations[0], few)
    case.run = case.run._replace(failed=jnp.int32(7))
    with pytest.raises(BenchError, match="mlp full batch 32 float32: the loss or a parameter became NaN or infinite"):
        case.look()


def test_labels_are_of_every_class():
    work = load_workload(settings(model=["mlp"], classes=3).configurations[0], seed=0)
    x, y = work.train["train"]
    assert x.shape == (128, 12)
    assert set(np.asarray(y).tolist()) == {0, 1, 2}
    assert np.asarray(x).std() == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_refused(monkeypatch):
    bad = lambda key, like, n, tokens: 1e38 * jax.random.normal(key, (n, *like.shape[1:]))  # noqa: E731
    monkeypatch.setattr(workload, "random_examples", bad)
    with pytest.raises(BenchError, match="became NaN or infinite"):
        run_bench(settings(model=["mlp"]), show=False)


@pytest.mark.parametrize(
    ("step", "moved", "losses", "said"),
    [
        (10, [True], [1.0, 2.0], "20 steps were launched and 10 were made"),
        (20, [True, False, False], [1.0, 2.0], "only 1 of 3 leaves"),
        (20, [], [1.0, 2.0], "only 0 of 0 leaves"),
        (20, [True], [1.0, float("nan")], "NaN or infinite"),
        (20, [True], [1.5, 1.5, 1.5], "the loss stayed at 1.5"),
    ],
)
def test_steps_that_were_not_made_are_refused(step, moved, losses, said):
    with pytest.raises(BenchError, match=said):
        check_executed("mlp", step, 20, moved, losses)


@pytest.mark.slow
def test_a_step_that_does_nothing_is_found_out(monkeypatch):
    monkeypatch.setattr(Case, "launch", lambda self, steps: self.run)
    with pytest.raises(BenchError, match="not one of the steps could be made"):
        run_bench(settings(model=["mlp"]), show=False)


@pytest.mark.slow
def test_too_short_a_time_is_refused(monkeypatch):
    monkeypatch.setattr(run, "tick_of", lambda: 1.0)
    with pytest.raises(BenchError, match="the clock ticks every 1 s; time more at once"):
        run_bench(settings(model=["mlp"], steps=1), show=False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"repeats": 4}, "option 'repeats' is 4; it should be 5 or more"),
        ({"seconds": 0.0}, "option 'seconds' is 0.0"),
        ({"model": []}, "option 'model'"),
        ({"batch": [0]}, "option 'batch'"),
        ({"batch": [8, 8]}, "without repetitions"),
        ({"dtype": ["float23"]}, "did you mean 'float32'"),
        ({"method": ["lorra"]}, "did you mean 'lora'"),
        ({"method": ["ddann"]}, "did you mean 'dann'"),
        ({"classes": 1}, "2 or more"),
        ({"mesh": "dta=2"}, "did you mean 'data'"),
        ({"mesh": "data=x"}, "sizes by axis"),
        ({"mesh": "data=2,data=2"}, "sizes by axis"),
        ({"seq_len": 0}, "option 'seq_len' is 0"),
        ({"repeat": 9}, "unknown option 'repeat'; did you mean 'repeats'"),
    ],
)
def test_settings_that_make_no_sense(values, said):
    with pytest.raises(SettingsError, match=said):
        bench_settings({"model": ["mlp"], **values})


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": ["mpl"]}, "no model is called 'mpl'; the nearest are mlp"),
        ({"model": ["mlp"], "image_size": 8, "features": None}, "'mlp' reads rows of numbers; option 'image_size'"),
        ({"model": ["bert-tiny"]}, "'bert-tiny' reads sentences; option 'features'"),
        ({"model": ["mlp(depth=3)"]}, "mlp has no option 'depth'"),
        ({"model": ["mlp"], "method": ["lora"], "target": ["nowhere/**"]}, "nowhere"),
    ],
)
def test_a_single_configuration_that_fails_is_an_error(values, said):
    with pytest.raises(BenchError, match=said):
        run_bench(settings(**values), show=False)
