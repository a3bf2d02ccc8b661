"""Programs are compiled once, ahead of time, side by side, under the settings of the caller."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import tljax as tl
from tljax.training.compile import Ahead, shapes_of

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
BACKEND = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """The names of the programs that the compiler is given, as they come."""
    found = []

    def hear(event, duration, **about):
        if event == BACKEND:
            found.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield found
    jax.monitoring.unregister_event_duration_listener(hear)


def test_equal_shapes_share_a_program_whatever_holds_them(compiled):
    double = Ahead(lambda x: {"y": 2 * x["y"]})
    first = double.begin({"y": jax.ShapeDtypeStruct((3,), jnp.float32)})
    for y in (jnp.ones(3), np.ones(3, np.float32), jax.device_put(jnp.ones(3), jax.devices()[0])):
        assert double.begin({"y": y}) is first
        assert first({"y": y})["y"].tolist() == [2, 2, 2]
    assert double.begin({"y": jnp.ones(4)}) is not first
    double.begin({"y": jnp.ones(4)}).wait()
    assert len([name for name in compiled if "lambda" in str(name)]) == 2


def test_where_arrays_lie_is_part_of_the_program():
    double, other = Ahead(lambda x: 2 * x), jax.devices()[1]
    usual = double.begin(jnp.ones(8))
    x = jax.device_put(jnp.ones(8), other)
    assert double.begin(x)(x).devices() == {other}
    with jax.default_device(other):
        assert double.begin(jnp.ones(8))(jnp.ones(8)).devices() == {other}
    assert double.begin(jnp.ones(8)) is usual
    spread = NamedSharding(tl.mesh(), PartitionSpec("data"))
    x = jax.device_put(jnp.ones(8), spread)
    assert shapes_of(x).sharding == spread
    assert double.begin(x)(x).sharding == spread


def test_a_setting_of_the_caller_makes_another_program():
    product = Ahead(lambda a: a @ a)
    usual = product.begin(jnp.ones((2, 2)))
    with jax.default_matmul_precision("highest"):
        precise = product.begin(jnp.ones((2, 2)))
    assert precise is not usual
    assert "HIGHEST" in str(precise.traced.jaxpr)
    assert product.begin(jnp.ones((2, 2))) is usual


def test_options_reach_the_compiler():
    with pytest.raises(Exception, match="no_such_option"):
        Ahead(lambda x: x + 1, options={"no_such_option": True}).begin(jnp.ones(2)).wait()


def test_programs_compile_side_by_side(monkeypatch):
    """Each compiler waits for the other to have begun: in turn they would wait for ever."""
    both, compile_ = threading.Barrier(2, timeout=30), jax.stages.Lowered.compile

    def together(lowered, *arguments):
        both.wait()
        return compile_(lowered, *arguments)

    monkeypatch.setattr(jax.stages.Lowered, "compile", together)
    begun = [Ahead(lambda x, n=n: x + n).begin(jnp.ones(2)) for n in (1, 2)]
    assert [program(jnp.ones(2)).tolist() for program in begun] == [[2, 2], [3, 3]]


@pytest.mark.slow
def test_a_configuration_is_compiled_once_over_fits_evaluations_and_stacks(compiled):
    model, objective, rule = tl.models.mlp((4,), num_classes=2), tl.cross_entropy(), optax.adam(0.1)
    params = model.init(jax.random.key(0), X)
    options = {"train": (X, Y), "valid": (X, Y), "optimizer": rule, "batch_size": 8, "progress": False}

    def all_of_it(seed):
        result = tl.fit(model, params, objective, steps=7, eval_every=3, seed=seed, **options)
        tl.evaluate(model, result.params, (X, Y))
        stack = jax.tree.map(lambda leaf: np.stack([leaf] * 2), result.params)
        many = tl.fit_many(model, stack, objective, steps=7, eval_every=3, seeds=[seed, seed + 1], **options)
        return result, many

    first = all_of_it(0)
    counts = {name: compiled.count(f"jit({name})") for name in ("start", "advance", "validate", "_cleared", "<lambda>")}
    # One run's, then a stack's: there beginning, advancing and evaluating go over the runs.
    assert counts == {"start": 1, "advance": 1, "validate": 1, "_cleared": 2, "<lambda>": 3}
    del compiled[:]
    second = all_of_it(5)
    assert compiled == []
    for cold, warm in zip(first, second):
        assert cold.compile_seconds > warm.compile_seconds >= 0


@pytest.mark.slow
def test_what_was_compiled_together_compiles_no_more(compiled):
    model, objective, rule = tl.models.mlp((5,), num_classes=2), tl.cross_entropy(), optax.adam(0.1)
    params = model.init(jax.random.key(0), X)
    stack = jax.tree.map(lambda leaf: np.stack([leaf] * 2), params)
    options = {"train": (X, Y), "valid": (X, Y), "optimizer": rule, "batch_size": 8, "progress": False, "steps": 4}
    fits = [
        functools.partial(tl.fit, model, params, objective, rules, **options)
        for rules in (tl.plan(), tl.linear_probe())
    ]
    fits.append(functools.partial(tl.fit_many, model, stack, objective, seeds=[0, 1], **options))
    assert tl.compile_all(fits) > 0
    assert compiled.count("jit(advance)") == 2
    del compiled[:]
    for fit in fits:
        fit()
    assert not {"jit(start)", "jit(advance)", "jit(validate)", "jit(_cleared)", "jit(_noted)"} & set(compiled)
    with pytest.raises(tl.training.FitError, match=r"functools\.partial"):
        tl.compile_all([fits[0].func])
