"""`fit` against a loop in Python over the same step, and `fit_many` against `fit`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, HITS, TANH, close, examples, normed, same

from tljax.data import batch_indices, fold_seed
from tljax.evaluation import Metric
from tljax.objectives import cross_entropy, mse, stateless
from tljax.plans import freeze, linear_probe, plan, rate
from tljax.training import fit, fit_many, make_step, read_rows
from tljax.types import Batch, Model, Output

X, Y = examples(40)
TRAIN, VALID = (X[:24], Y[:24]), (X[24:], Y[24:])
SGD = optax.sgd(0.5)
ENTROPY = cross_entropy()
SHORT = {"optimizer": SGD, "steps": 12, "batch_size": 8, "eval_every": 4, "progress": False, "metric": HITS}


def start(key=1):
    return TANH.init(jax.random.key(key), X)


def quick(params=None, model=TANH, objective=ENTROPY, p=plan(), train=TRAIN, valid=VALID, **options):  # noqa: B008
    """`fit` with short defaults that all tests share, so that they share a compiled program."""
    options = SHORT | options
    if valid is None:
        options |= {"metric": None}
    return fit(model, start() if params is None else params, objective, p, train, valid, **options)


def accuracy(params, data=VALID):
    return np.mean(np.argmax(TANH.apply(params, data[0]).logits, -1) == data[1])


def test_fit_is_a_loop_over_the_step():
    result = quick(seed=7, metric=None)
    step = make_step(TANH, ENTROPY, plan().resolve(start()), SGD)
    state = step.init(start(), {"train": Batch(*map(jnp.asarray, TRAIN))}, seed=7)
    update, losses, scores = jax.jit(step.update), [], [accuracy(start())]
    for t in range(12):
        rows = batch_indices(fold_seed(7, 0), t, 8, 24)
        state, metrics = update(state, {"train": Batch(jnp.asarray(X)[rows], jnp.asarray(Y)[rows])})
        losses.append(float(metrics["loss"]))
        if t % 4 == 3:
            scores.append(accuracy(state.params))
    close(result.last, state.params)
    train_rows = [row for row in result.history if row["split"] == "train"]
    assert [row["step"] for row in train_rows] == [4, 8, 12]
    np.testing.assert_allclose([r["loss"] for r in train_rows], np.reshape(losses, (3, 4)).mean(1), rtol=1e-5)
    valid_rows = [row for row in result.history if row["split"] == "valid"]
    assert [row["step"] for row in valid_rows] == [0, 4, 8, 12]
    np.testing.assert_allclose([r["accuracy"] for r in valid_rows], scores, rtol=1e-6)
    assert result.steps == 12
    assert result.monitor == "accuracy"
    np.testing.assert_allclose(result.best_value, max(scores), rtol=1e-6)
    assert result.best_step == 4 * int(np.argmax(scores))


def scripted(values):
    """A model whose metric at evaluation number i is `values[i]`, and whose one parameter counts the steps."""
    table = jnp.asarray(values, jnp.float32)

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        del train, key, frozen
        at = jnp.clip(params["head"]["n"].astype(jnp.int32), 0, len(values) - 1)
        return Output(jnp.broadcast_to(table[at], (x.shape[0], 1)), x)

    model = Model(lambda key, x: {"head": {"n": jnp.float32(0)}}, apply, name="scripted")
    objective = stateless(lambda scene: (-scene.params["head"]["n"], {}), "count")
    metric = Metric(
        lambda: jnp.float32(0),
        lambda s, logits, y, w: logits[0, 0].astype(jnp.float32),
        lambda s: {"value": s, "table": jnp.zeros(3)},
        lambda a, b: b,
    )
    return model, objective, metric


def watch(values, **options):
    model, objective, metric = scripted(values)
    options = {"steps": len(values) - 1, "eval_every": 1, "minimize": False} | options
    return quick(
        {"head": {"n": jnp.float32(0)}}, model, objective, optimizer=optax.sgd(1.0), metric=metric, monitor="value",
        **options,
    )  # fmt: skip


def test_early_stopping_waits_as_long_as_it_was_told():
    result = watch([1, 3, 2, 4, 4, 3, 9, 9, 9], patience=3)  # 9 comes just in time
    assert (float(result.best_value), int(result.best_step), result.steps) == (9.0, 6, 8)
    result = watch([1, 3, 2, 4, 4, 3, 0, 9, 9], patience=3)
    assert (float(result.best_value), int(result.best_step), result.steps) == (4.0, 3, 6)
    assert float(result.params["head"]["n"]) == 3
    assert float(result.last["head"]["n"]) == 6


def test_without_patience_the_run_goes_on_and_the_best_is_kept():
    result = watch([1, 5, 2, 2, 3])
    assert (float(result.best_value), int(result.best_step), result.steps) == (5.0, 1, 4)
    assert float(result.last["head"]["n"]) == 4


def test_less_may_be_better_and_nan_is_never_the_best():
    result = watch([5, 2, 3, float("nan"), 1, 4], minimize=True)
    assert (float(result.best_value), int(result.best_step)) == (1.0, 4)
    result = watch([float("nan"), 2, 3], minimize=True)
    assert (float(result.best_value), int(result.best_step)) == (2.0, 1)


def test_the_start_counts_as_a_candidate():
    result = watch([9, 1, 2])
    assert int(result.best_step) == 0
    assert float(result.params["head"]["n"]) == 0


def test_without_validation_the_last_parameters_are_the_result():
    result = quick(valid=None)
    assert result.best_value is None
    assert result.monitor is None
    assert int(result.best_step) == 12
    assert same(result.params, result.last)
    assert {row["split"] for row in result.history} == {"train"}


@pytest.mark.slow
def test_log_rows_come_at_their_times_and_go_to_the_listeners(tmp_path):
    seen, again = [], []
    result = quick(steps=10, eval_every=5, log_every=3, on_log=[seen.append, again.append], run_dir=tmp_path)
    assert [(row["step"], row["split"]) for row in seen] == [
        (0, "valid"), (3, "train"), (5, "valid"), (6, "train"), (9, "train"), (10, "train"), (10, "valid"),
    ]  # fmt: skip
    assert seen == again == list(result.history) == read_rows(tmp_path / "metrics.jsonl")
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_logging_evaluation_and_saving_change_no_number(tmp_path):
    plain = quick(steps=11)
    busy = quick(steps=11, eval_every=1, log_every=2, save_every=3, run_dir=tmp_path)
    assert same(plain.last, busy.last)


def count_compilations(run):
    """How many programs were compiled while `run` ran."""
    names = []

    def note(event, duration, **rest):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(rest.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        run()
        return len(names), names
    finally:
        names = []


def test_a_configuration_is_traced_and_compiled_once(tmp_path):
    traced = []

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        traced.append(train)
        return TANH.apply(params, x)

    model, objective, optimizer = TANH._replace(apply=apply), cross_entropy(), optax.adam(0.1)

    def run(**options):
        quick(None, model, objective, plan(rate("head/**", 2.0)), optimizer=optimizer, **options)

    run(eval_every=4, steps=12)
    first = list(traced)
    assert len(first) <= 8  # shapes of the outputs, state and metrics; the step; the metric and the evaluation
    run(eval_every=3, log_every=2, steps=29, seed=3)  # other rhythm, seed and number of steps: the same program
    assert traced.count(True) == first.count(True)
    count, names = count_compilations(lambda: run(eval_every=5, steps=20))
    assert not count, names
    run(run_dir=tmp_path)  # the fingerprint needs the program's text, not another program
    assert traced.count(True) == first.count(True)


def test_the_result_tells_what_a_run_costs():
    adam = quick(optimizer=optax.adam(0.1), p=linear_probe())
    moments = 2 * (TANH.init(jax.random.key(0), X)["head"]["w"].size + CLASSES)
    assert adam.optimizer_bytes == 4 * (moments + 1)  # and its counter
    assert 0 < adam.step_seconds < adam.training_seconds
    once = quick(steps=1)
    assert (once.step_seconds, once.optimizer_bytes) == (None, 0)  # the one launch compiles


def test_the_callers_parameters_and_data_stay_usable():
    params = start()
    before = jax.tree.map(np.array, params)
    results = [quick(params), quick(params)]
    assert same(jax.tree.map(np.asarray, params), before)
    assert same(results[0].params, results[1].params)
    eaten = jax.jit(lambda p: jax.tree.map(lambda a: a + 1, p), donate_argnums=0)(results[0].params)
    assert same(results[0].last, results[1].last)  # only its own buffers were given away
    assert same(jax.tree.map(np.asarray, params), before)
    del eaten


def test_frozen_leaves_of_the_result_are_copies_of_the_callers():
    params = start()
    result = quick(params, p=freeze_backbone())
    assert same(result.params["backbone"], params["backbone"])
    assert result.params["backbone"]["w"] is not params["backbone"]["w"]
    assert not same(result.last["head"], params["head"])


def freeze_backbone():
    return plan(freeze("backbone/**"))


def test_numpy_parameters_and_lists_will_do():
    params = jax.tree.map(np.asarray, start())
    lists = (X[:24].astype(float).tolist(), Y[:24].tolist())
    assert same(quick(params, train=lists).last, quick().last)


@pytest.mark.slow
def test_dropout_batchnorm_and_average_go_through_fit():
    model = normed(dropout=0.3)
    params = model.init(jax.random.key(0), X)
    result = quick(params, model, p=linear_probe(), ema=0.9, clip_norm=1.0, accumulate=2)
    assert same(result.last["backbone"], params["backbone"])
    assert not same(result.last["head"], params["head"])


@pytest.mark.slow
def test_augmentation_is_compiled_in_and_draws_from_its_own_stream():
    def shift(key, batch):
        return batch._replace(x=batch.x + jax.random.normal(key, batch.x.shape))

    augmented, again = quick(augment=shift), quick(augment=shift)
    assert same(augmented.last, again.last)
    assert not same(augmented.last, quick().last)


def test_regression_by_default_watches_the_rmse():
    targets = X[:, :CLASSES] * 2
    result = quick(objective=mse(), train=(X[:24], targets[:24]), valid=(X[24:], targets[24:]), metric=None)
    assert result.monitor == "rmse"
    values = [row["rmse"] for row in result.history if row["split"] == "valid"]
    np.testing.assert_allclose(result.best_value, min(values))


@pytest.mark.slow
def test_streams_have_their_own_batch_sizes():
    objective = cross_entropy(stream="a") + 0.1 * cross_entropy(stream="b")
    shapes = []

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        shapes.append((train, x.shape[0]))
        return TANH.apply(params, x)

    train = {"b": (X[:10], Y[:10]), "a": TRAIN}
    quick(None, TANH._replace(apply=apply), objective, train=train, batch_size={"a": 6, "b": 3}, valid=None)
    assert {n for train, n in shapes if train} == {6, 3}


# --- many runs in one program ----------------------------------------------------------------------------------------


def stack(keys):
    return jax.vmap(lambda key: TANH.init(key, X))(jax.vmap(jax.random.key)(jnp.array(keys)))


def unstack(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def many(keys, params=None, **options):
    options = SHORT | options
    return fit_many(TANH, stack(keys) if params is None else params, ENTROPY, plan(), TRAIN, VALID, **options)


@pytest.mark.slow
def test_a_stack_is_the_same_runs_one_by_one():
    seeds, subsets = [3, 4], [np.arange(24), np.array([7, 2, 19])]
    stacked = many(seeds, seeds=seeds, subsets=subsets)
    for i, seed in enumerate(seeds):
        train = (X[subsets[i]], Y[subsets[i]])
        alone = quick(unstack(stack(seeds), i), train=train, seed=seed)
        assert same(unstack(stacked.last, i), alone.last)
        assert same(unstack(stacked.params, i), alone.params)
        assert stacked.best_value[i] == alone.best_value
        assert stacked.best_step[i] == alone.best_step
        rows = [{k: v for k, v in row.items() if k != "run"} for row in stacked.history if row["run"] == i]
        assert rows == list(alone.history)


@pytest.mark.slow
def test_rates_of_a_stack_are_learning_rates():
    stacked = many([1, 1], seeds=[0, 0], rates=[1.0, 0.2])
    for i, factor in enumerate((0.5, 0.1)):
        alone = quick(unstack(stack([1]), 0), optimizer=optax.sgd(factor), seed=0)
        close(unstack(stacked.last, i), alone.last)


POISONED = Y[:24].copy()
POISONED[10:] = 99  # no class, so its loss is NaN


def poisoned(subsets, y=POISONED, **options):
    """Two runs on data of which the examples from number 10 on end a run that draws them."""
    options = SHORT | {"seeds": [0, 1], "subsets": subsets, "steps": 40} | options
    return fit_many(TANH, stack([1, 2]), ENTROPY, plan(), (X[:24], y), VALID, **options)


def test_a_stack_never_sees_an_example_outside_a_runs_subset():
    subsets = [range(10), [1, 5, 9]]
    assert same(poisoned(subsets).last, poisoned(subsets, Y[:24]).last)


def test_a_diverged_run_of_a_stack_is_an_outcome_not_an_error(tmp_path):
    stacked = poisoned([range(10), range(11)], run_dir=tmp_path)
    assert same(unstack(stacked.last, 0), unstack(poisoned([range(10), range(3)]).last, 0))
    assert np.isfinite(stacked.best_value).all()
    finite = [(row["run"], bool(np.isfinite(row["loss"]))) for row in stacked.history if row["split"] == "train"]
    assert set(finite) == {(0, True), (1, False)}
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = poisoned([range(10), range(11)], run_dir=tmp_path)
    assert repr(again.history) == repr(stacked.history)  # nan is not equal to itself


@pytest.mark.slow
def test_a_run_of_a_stack_that_stops_stays_as_it_is():
    rates = [1.0, 1e-12]  # the second learns nothing, so its accuracy never improves on the start's
    params = jax.tree.map(lambda a: jnp.stack([a, a]), start(8))
    stacked = many([0, 0], params, seeds=[0, 0], rates=rates, steps=60, eval_every=2, patience=3)
    short = many([0, 0], params, seeds=[0, 0], rates=rates, steps=6, eval_every=2)
    assert same(unstack(stacked.last, 1), unstack(short.last, 1))
    assert [row["step"] for row in stacked.history if row["run"] == 1 and row["split"] == "valid"] == [0, 2, 4, 6]
    assert stacked.steps > 6
    assert stacked.best_step[1] == 0


def test_other_subsets_and_rates_need_no_new_program():
    def run(subsets, rates):
        many([1, 2], seeds=[1, 2], subsets=subsets, rates=rates)

    run([range(3), range(9)], [1.0, 0.1])
    count, names = count_compilations(lambda: run([range(20), [5]], [0.3, 0.3]))
    assert not count, names
