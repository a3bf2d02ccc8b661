"""Bad input: one clear error each, and what stood before still stands."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, TANH, examples, normed, same

from tljax.data import Dataset
from tljax.evaluation import classification
from tljax.objectives import (
    Owned,
    Term,
    binary_cross_entropy,
    cross_entropy,
    dann,
    fixmatch,
    l2_sp,
    mcc,
    mean_teacher,
    mse,
    stateless,
)
from tljax.plans import PlanError, freeze, plan
from tljax.training import FitError, NonFiniteError, fit, fit_many, read_rows
from tljax.training.inputs import labelled, own_subsets, padded, streams_of
from tljax.training.monitor import choose_monitor
from tljax.tree import NoMatchError
from tljax.types import Batch, TljaxError

X, Y = examples(16)
SGD = optax.sgd(0.1)


def start():
    return TANH.init(jax.random.key(1), X)


def run(params=None, objective=None, p=plan(), train=(X, Y), valid=(X, Y), **options):  # noqa: B008
    options = {"optimizer": SGD, "steps": 4, "progress": False} | options
    return fit(TANH, params or start(), objective or cross_entropy(), p, train, valid, **options)


def with_value(array, value, at=3):
    changed = array.copy()
    changed[at] = value
    return changed


def wide(value):
    return with_value(Y.astype(np.int64), value)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, r"fit needs training data: train=\(x, y\)"),
        (X, r"\(train\) should be a pair \(x, y\) or have .x and .y; found ndarray"),
        ((with_value(X, np.nan), Y), r"inputs have 5 values that are NaN or infinite in float32, .* at \[3, 0\]"),
        ((with_value(X, np.inf), Y), "inputs have 5 values that are NaN or infinite"),
        ((with_value(X.astype(np.float64), 1e300), Y), "NaN or infinite in float32"),
        ((jnp.asarray(with_value(X, np.nan)), Y), "NaN or infinite"),
        ((with_value(X.astype(jnp.bfloat16), np.nan), Y), "NaN or infinite in bfloat16"),
        ((X, with_value(Y, CLASSES)), r"training labels of tanh net go from 0 to 3, .* 3 outputs: expected 0..2"),
        ((X, with_value(Y, -1)), "labels of tanh net go from -1 to 2"),
        ((X, wide(2**32 + 1)), "labels hold 0 to 4294967297, which do not fit into int32"),
        ((X, Y.astype(np.float32)), r"float32\[N\], and it has 3 outputs: expected \[N, 3\]. For classes"),
        ((X, X), r"float32\[N, 5\], and it has 3 outputs"),
        ((X, Y[:10]), r"as many labels; found lengths \[10, 16\]"),
        ((X[:0], Y[:0]), r"at least one, and as many labels; found lengths \[0\]"),
        ((X, np.array(["cat"] * 16)), "labels must be numbers; found dtype <U3"),
        ((np.array([object()] * 16), Y), "inputs must be numbers; found dtype object"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "inputs are no rectangular array"),
        ((np.float32(1), np.int32(1)), "found a single number"),
        ((X[:, :4], Y), r"tanh net with these parameters cannot take inputs float32\[N, 4\]: "),
        (Batch(X, Y, np.ones(16)), r"\(train\) have weights, which are not read: leave out"),
        ({"target": (X, Y)}, r"reads the streams 'train'; train has 'target': give a dict"),
    ],
)  # fmt: skip
def test_training_data_that_cannot_be_used(train, message):
    with pytest.raises(FitError, match=message):
        run(train=train)


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        ((X, with_value(Y, 7)), "the validation labels of tanh net go from 0 to 7"),
        ((with_value(X, np.nan), Y), "the validation data: the inputs have 5 values that are NaN"),
        ((X[:0], Y[:0]), "the validation data needs inputs, at least one"),
        ((X, None), "the validation data need labels"),
        ((X, Y.astype(np.float32)), "the validation labels of tanh net are float32"),
        ((X[:, :3], Y), r"tanh net with these parameters cannot take inputs float32\[N, 3\] of the validation data"),
    ],
)
def test_validation_data_that_cannot_be_used(valid, message):
    with pytest.raises(FitError, match=message):
        run(valid=valid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, 1 or more; found 0"),
        ({"steps": -3}, "steps must be"),
        ({"steps": 2.5}, "steps must be a whole number, 1 or more; found 2.5"),
        ({"steps": "10"}, "steps must be a whole number, 1 or more; found '10'"),
        ({"steps": True}, "steps must be"),
        ({"eval_every": 0}, "eval_every must be"),
        ({"log_every": 0}, "log_every must be"),
        ({"save_every": -1}, "save_every must be"),
        ({"keep": 0}, "keep must be"),
        ({"patience": 0}, "patience must be"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"batch_size": 0}, "batch_size of 'train' must be a whole number, 1 or more"),
        ({"batch_size": 7, "accumulate": 2}, "and a multiple of accumulate=2; found 7"),
        ({"batch_size": {"other": 8}}, "batch_size: there is no stream 'other'; there are 'train'"),
        ({"batch_size": {"train": 8, "source": 4}}, "'source' and 'train' are two names of one stream; give one"),
        ({"batch_size": {}}, "batch_size of 'train' must be .*; found None"),
        ({"clip_norm": -1.0}, "clip_norm must be above 0"),
        ({"ema": 2.0}, "ema is the decay"),
        ({"seed": -1}, "a seed is a whole number from 0 to 4294967295; found -1"),
        ({"seed": 0.5}, "a seed is"),
        ({"on_log": print}, r"on_log is a list of functions of a row, as on_log=\[print\]"),
        ({"batchsize": 8}, "fit has no option 'batchsize'; the nearest are 'batch_size'"),
        ({"epochs": 8}, "fit has no option 'epochs'; the nearest are 'steps'"),
        ({"learning_rate": 0.1}, "fit has no option 'learning_rate'; the nearest are "),
        ({"monitor": "acuracy"}, "monitor='acuracy' is no number of the metric; it has .*Did you mean 'accuracy'"),
        ({"monitor": "confusion"}, "monitor='confusion' is no number of the metric"),
        ({"monitor": "worst_class"}, "monitor='worst_class': say whether less of it is better: minimize=True"),
        ({"patience": 3, "valid": None}, r"patience=3 needs validation data: valid=\(x, y\)"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(TljaxError, match=message):
        run(**options)


def test_steps_must_be_given():
    with pytest.raises(FitError, match="fit needs the number of updates to make: steps=1000"):
        fit(TANH, start(), cross_entropy(), plan(), (X, Y), optimizer=SGD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.tanh, start(), cross_entropy(), plan()), r"the model should be a tl.Model; .* tl.from_flax\(module\)"),
        (
            (TANH, start(), cross_entropy, plan()),
            r"should be a term, as tl.cross_entropy\(\); found function",
        ),
        ((TANH, start(), cross_entropy(), freeze("backbone/**")), "plan should be a plan, as .*; found Rule"),
        ((TANH, start(), cross_entropy(), (X, Y)), "plan should be a plan, as .*; found tuple"),
    ],
)
def test_arguments_in_the_wrong_place(arguments, message):
    with pytest.raises(FitError, match=message):
        fit(*arguments, train=(X, Y), optimizer=SGD, steps=1)
    with pytest.raises(FitError, match=r"the optimizer should be one of optax, as .*; found 0.1"):
        run(optimizer=0.1)


def test_plans_that_do_not_fit():
    with pytest.raises(PlanError, match="trains nothing"):
        run(p=plan(freeze("**")))
    with pytest.raises(NoMatchError, match="nearest"):
        run(p=plan(freeze("backbonne/**")))


def test_an_objective_without_data():
    with pytest.raises(FitError, match=r"reads no data; add a term that does"):
        run(objective=l2_sp(start()))


# --- stacks ----------------------------------------------------------------------------------------------------------


def stack(count):
    return jax.tree.map(lambda a: jnp.stack([a] * count), start())


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (2, {"seeds": [0, 1, 2]}, r"got 3 seeds, so every leaf of params needs as many runs.*of the shape \(2, 4\)"),
        (1, {"seeds": []}, "got 0 seeds"),
        (2, {"seeds": [0, 1], "rates": [1.0]}, "rates are positive numbers, one for each of the 2 seeds"),
        (2, {"seeds": [0, 1], "rates": [1.0, 0.0]}, "rates are positive"),
        (2, {"seeds": [0, 2**32]}, "a seed is a whole number"),
        (2, {"seeds": [0, 1], "subsets": [[0]]}, "there are 2 runs and 1 subsets of 'train'"),
        (2, {"seeds": [0, 1], "subsets": [[0], []]}, "subset 1 of 'train' should be a list of indices, at least one"),
        (
            2,
            {"seeds": [0, 1], "subsets": [[0], [16]]},
            "subset 1 of 'train' has indices 16 to 16; there are 16",
        ),
        (2, {"seeds": [0, 1], "subsets": [[0], [-1]]}, "has indices -1 to -1"),
        (2, {"seeds": [0, 1], "subsets": [[0], [True]]}, "should be a list of indices"),
        (2, {"seeds": [0, 1], "subsets": {"tain": [[0], [1]]}}, "there is no stream 'tain'; there are 'train'"),
    ],
)
def test_stacks_that_do_not_fit(count, options, message):
    with pytest.raises(FitError, match=message):
        fit_many(TANH, stack(count), cross_entropy(), plan(), (X, Y), optimizer=SGD, steps=2, progress=False, **options)


def test_several_streams_need_their_subsets_by_name():
    streams = streams_of({"a": (X, Y), "b": (X[:8], Y[:8])}, cross_entropy(stream="a") + cross_entropy(stream="b"))
    with pytest.raises(FitError, match=r"there are 2 streams; write subsets=\{'a'"):
        own_subsets(streams, [[0], [1]], 2)
    own = own_subsets(streams, {"b": [[7], [1, 2]]}, 2)
    assert own["a"].size.tolist() == [16, 16]
    assert own["b"].size.tolist() == [1, 2]
    assert own["b"].subset[:, :2].tolist() == [[7, 0], [1, 2]]


@pytest.mark.parametrize("term", [0.5 * fixmatch(), cross_entropy() + mean_teacher()], ids=["fixmatch", "mean_teacher"])
def test_views_of_the_same_examples_are_one_stream(term):
    objective = cross_entropy() + term
    apart = {"train": (X, Y), "weak": (X, None), "strong": (X + 1, None)}
    with pytest.raises(FitError, match=r"compares 'strong' and 'weak' example by example.*views=\{'strong': 'unlab"):
        streams_of(apart, objective)
    one = {"train": (X, Y), "weak": (X, None)}
    assert list(streams_of(one, objective, {"strong": "weak"})) == ["train", "weak"]


# --- what goes wrong on the way --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_becomes_nan_names_the_step_the_metric_and_the_last_good_checkpoint(tmp_path):
    def value(scene):
        blow = jnp.where(scene.step >= 6, jnp.nan, 1.0)
        loss = blow * jnp.mean(jnp.square(scene.outputs["train"].logits))
        return loss, {"pull": loss, "calm": jnp.float32(1), "accuracy": blow}

    options = {"objective": stateless(value, "bomb"), "steps": 20, "run_dir": tmp_path, "save_every": 2, "log_every": 2}
    message = (
        r"the loss became NaN or infinite at step 7: of its terms pull\. Lower the learning rate, .*"
        rf"Checkpoint 6 in {tmp_path}/checkpoints is from before that"
    )
    for _ in range(2):  # the second run continues from that checkpoint, to the same end
        with pytest.raises(NonFiniteError, match=message):
            run(**options)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"] == [2, 4, 6]


@pytest.mark.slow
def test_parameters_that_become_nan_are_never_saved(tmp_path):
    @jax.custom_vjp
    def poison(x, step):
        return x

    poison.defvjp(lambda x, step: (x, step), lambda step, g: (jnp.where(step >= 3, jnp.nan, g), None))

    def value(scene):
        return poison(jnp.mean(jnp.square(scene.outputs["train"].logits)), scene.step), {}

    with pytest.raises(NonFiniteError, match=r"parameters became NaN or infinite by step 4: model/backbone/b, .*"):
        run(objective=stateless(value, "quiet bomb"), steps=4, save_every=1, run_dir=tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == ["2", "3"]


@pytest.mark.slow
def test_a_schedule_that_gives_no_number_is_named():
    ends = lambda step: jnp.where(step < 3, 1.0, jnp.nan)  # noqa: E731
    domains = {"train": {"source": (X, Y), "target": (X, None)}, "steps": 6, "valid": None, "monitor": "loss"}
    said = r"loss became NaN or infinite at step 4, and none of its terms: .*; the factor of <lambda> \* mcc\(\) is not"
    with pytest.raises(NonFiniteError, match=said):
        run(objective=cross_entropy() + ends * mcc(), **domains)
    said = r"parameters became NaN or infinite by step 4: model/.*; the strength of dann\(strength=<lambda>\) is not"
    with pytest.raises(NonFiniteError, match=said):
        run(objective=cross_entropy() + 2 * dann(strength=ends), **domains)


@pytest.mark.slow
def test_where_all_terms_fail_none_is_blamed():
    broken = start()
    broken["head"] = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e38), broken["head"])
    domains = {"train": {"source": (X, Y), "target": (X, None)}, "steps": 2, "valid": None, "monitor": "loss"}
    said = r"at step \d, in all its terms \(cross_entropy, mcc\), as where the model's outputs"
    with pytest.raises(NonFiniteError, match=said):
        run(params=broken, objective=cross_entropy() + mcc(), **domains)


@pytest.mark.slow
def test_what_a_term_owns_is_told_by_the_term():
    def apply(owned, scene):
        w = owned.params["w"]
        return jnp.where(scene.step < 2, 1, jnp.sqrt(w - w)) * w, (), {}  # the slope of sqrt at 0

    rooted = Term(apply, lambda key, scene: Owned({"w": jnp.ones(())}), "rooted()")
    said = (
        r"by step 1: w of 0.5 \* rooted\(\).* gradient not: look for .* in cross_entropy\(\), 0.5 \* rooted\(\)\. Lower"
    )
    with pytest.raises(NonFiniteError, match=said):
        run(objective=cross_entropy() + 0.5 * rooted, steps=4)


def test_an_unwritable_run_folder(tmp_path):
    file = tmp_path / "run"
    file.write_text("precious")
    with pytest.raises(TljaxError, match=rf"the run folder {file} is a file"):
        run(run_dir=file)
    with pytest.raises(TljaxError, match="the run folder /proc/tljax cannot be written to"):
        run(run_dir="/proc/tljax")
    assert file.read_text() == "precious"


@pytest.mark.slow
def test_bad_input_leaves_an_earlier_run_as_it_was(tmp_path):
    result = run(run_dir=tmp_path)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    for options in ({"steps": 0}, {"train": (X, with_value(Y, 9))}, {"monitor": "nothing"}, {"p": plan(freeze("**"))}):
        with pytest.raises(TljaxError):
            run(run_dir=tmp_path, **options)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
    assert same(run(run_dir=tmp_path).last, result.last)


STRUCTURE = ["evaluation program", "training program"]
OTHER_START = jax.tree.map(lambda a: a + 1e-6, start())


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("options", "differing"),
    [
        ({"batch_size": 8}, ["batch_size.train: was 32, now 8", "training program"]),
        ({"optimizer": optax.sgd(0.2)}, ["training program"]),
        ({"optimizer": optax.sgd(optax.linear_schedule(0.1, 0.0, 100))}, [*STRUCTURE, "starting parameters"]),
        ({"params": OTHER_START}, ["starting parameters"]),
        ({"train": (with_value(X, 0.5), Y)}, ["training data"]),
        ({"valid": (X[::-1], Y[::-1])}, ["validation data"]),
        ({"seed": 1}, ["seed: was 0, now 1", "starting parameters"]),
        ({"p": plan(freeze("backbone/b"))}, ["plan: was", *STRUCTURE, "starting parameters"]),
        ({"objective": cross_entropy(label_smoothing=0.1)}, ["objective: was", "training program"]),
        ({"steps": 5}, ["steps: was 4, now 5"]),
        ({"eval_every": 2}, ["eval_every: was 1, now 2", "log_every"]),
        ({"metric": classification(3, bins=5)}, ["evaluation program"]),
        ({"config": {"note": "b"}}, ['config.note: was null, now "b"']),
    ],
)
def test_another_configuration_is_refused(first_run, options, differing):
    with pytest.raises(TljaxError, match="holds a run of another configuration") as error:
        run(run_dir=first_run, **options)
    lines = re.findall(r"^  (.*)$", str(error.value), flags=re.MULTILINE)
    assert len(lines) == len(differing), lines
    for line in differing:
        assert any(found.startswith(line) for found in lines), (line, lines)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(run_dir=folder)
    return folder


@pytest.mark.slow
def test_another_model_is_refused(first_run):
    def apply(params, x, **rest):
        out = TANH.apply(params, x)
        return out._replace(logits=out.logits * 1.0001)

    with pytest.raises(TljaxError, match="evaluation program: was") as error:
        fit(TANH._replace(apply=apply), start(), cross_entropy(), plan(), (X, Y), (X, Y), optimizer=SGD, steps=4,
            progress=False, run_dir=first_run)  # fmt: skip
    assert "training program (optimiser, schedule, loss, model): was" in str(error.value)


# --- what is watched -------------------------------------------------------------------------------------------------


def monitor(y, model=TANH, **options):
    options = {"task": None, "metric": None, "name": None, "minimize": None} | options
    train = labelled((X[:, :5], y), "data")
    train = jax.tree.map(jnp.asarray, train)
    return choose_monitor(model, start(), train, padded((X, y)), **options)


SOFT = np.full((16, CLASSES), 1 / CLASSES, np.float32)
HARD = (SOFT * 0 + np.array([1, 0, 1])).astype(np.float32)


@pytest.mark.parametrize(
    ("y", "options", "name", "sign"),
    [
        (Y, {}, "accuracy", 1),
        (Y.astype(np.uint8), {}, "accuracy", 1),
        (SOFT, {}, "accuracy", 1),
        (HARD, {}, "accuracy", 1),
        (HARD.astype(bool), {}, "accuracy", 1),
        (SOFT * 2, {}, "rmse", -1),
        (HARD, {"task": "regression"}, "rmse", -1),
        (SOFT * 2, {"task": "labels"}, "accuracy", 1),
        (Y, {"name": "nll"}, "nll", -1),
        (Y, {"name": "macro_f1"}, "macro_f1", 1),
        (Y, {"name": "ece"}, "ece", -1),
        (Y, {"name": "count", "minimize": False}, "count", 1),
        (Y, {"name": "accuracy", "minimize": True}, "accuracy", -1),
    ],
)
def test_what_is_watched_by_default(y, options, name, sign):
    found = monitor(y, **options)
    assert (found.name, found.sign) == (name, sign)


def test_the_default_metric_of_soft_labels_is_of_the_likeliest_class():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(16, CLASSES)), jnp.float32)
    soft = jax.nn.one_hot(Y, CLASSES) * 0.8 + 0.2 / CLASSES
    metric = monitor(np.asarray(soft)).metric
    accuracy = jax.jit(lambda y: metric.compute(metric.update(metric.init(), logits, y, jnp.ones(16)))["accuracy"])
    assert accuracy(soft) == np.mean(np.argmax(logits, -1) == Y)
    assert monitor(np.asarray(soft)).metric is metric  # so that its program is found again


@pytest.mark.slow
def test_a_data_set_says_what_its_labels_are():
    data = Dataset(X, HARD, classes=())
    result = run(objective=mse(), train=data, valid=data)
    assert result.monitor == "rmse"
    data = Dataset(X, HARD, classes=("a", "b", "c"))
    assert run(objective=binary_cross_entropy(), train=data, valid=data).monitor == "accuracy"


@pytest.mark.slow
def test_unlabelled_streams_and_objectives_without_labels():
    look = stateless(lambda scene: (jnp.mean(jnp.square(scene.outputs["train"].features)), {}), "look")
    assert run(objective=look, train=Batch(X), valid=None).steps == 4
    with pytest.raises(FitError, match="the training data have no labels, so say what to evaluate: metric="):
        run(objective=look, train=Batch(X))
    assert run(objective=look, train=Batch(X), metric=classification(CLASSES)).monitor == "accuracy"


@pytest.mark.slow
def test_padding_is_spread_and_counts_for_nothing():
    for n in (1, 512, 513):
        batch = padded((np.ones((n, 2)), np.zeros(n, int)))
        assert batch.weight.sum() == n
        assert batch.weight.size - n < len(batch.weight)
        assert batch.x[batch.weight == 0].sum() == 0


@pytest.mark.slow
def test_a_model_with_dropout_needs_no_key_to_be_evaluated():
    model = normed(dropout=0.5)
    params = model.init(jax.random.key(0), X)
    fit(model, params, cross_entropy(), plan(), (X, Y), (X, Y), optimizer=SGD, steps=2, progress=False)
