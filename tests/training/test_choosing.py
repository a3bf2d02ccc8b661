"""Choosing by a validator inside `fit`: the same numbers as by hand, and no look at the target's labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, TANH, close, examples, same

from tljax.data import stream
from tljax.evaluation import Answers, classification, predict, validator
from tljax.objectives import cross_entropy, stateless
from tljax.plans import freeze, plan
from tljax.training import FitError, fit, fit_many, read_rows
from tljax.types import Model, Output

X, Y = examples(60)
RNG = np.random.default_rng(1)
TARGET = (X[30:] + 0.7 * RNG.normal(size=(30, 5))).astype(np.float32)
TRAIN = {"source": (X[:30], Y[:30]), "target": (TARGET, None)}
VALID = {"source": (X[30:51], Y[30:51]), "target": (TARGET[:25], Y[30:55]), "source_train": (X[:30], None)}
SGD = optax.sgd(0.5)


def _sureness(scene):
    p = jax.nn.softmax(scene.outputs["target"].logits)
    return -jnp.mean(jnp.sum(p * jnp.log(p + 1e-6), -1)), {}


ADAPT = cross_entropy(stream="source") + 0.3 * stateless(_sureness, "sureness()", "target")
SHORT = {"optimizer": SGD, "steps": 12, "batch_size": 8, "eval_every": 3, "progress": False}
NUMBERS = ("source_accuracy", "source_likelihood", "certainty", "im", "bnm", "snd", "dev", "oracle_accuracy")
LABEL_FREE = NUMBERS[:-1]


def start(key=1):
    return TANH.init(jax.random.key(key), X)


def quick(name="im", valid=VALID, model=TANH, params=None, **options):
    metric = validator(name) if isinstance(name, str) else name
    given = SHORT | {"metric": metric} | options
    return fit(model, start() if params is None else params, ADAPT, train=TRAIN, valid=valid, **given)


def rows(result, run=None):
    return [row for row in result.history if row["split"] == "valid" and row.get("run") == run]


def by_hand(params, valid=VALID):
    found = {}
    for name, (x, y) in valid.items():
        output = predict(TANH, params, x)
        found[name] = Answers(output.logits, output.features, y)
    return validator("im")(found)


@pytest.fixture(scope="module")
def result():
    return quick()


def test_the_rows_are_what_validators_give_by_hand(result):
    assert [row["step"] for row in rows(result)] == [0, 3, 6, 9, 12]
    for row in rows(result):
        assert tuple(row)[2:] == NUMBERS
    for params, step in ((start(), 0), (result.params, int(result.best_step)), (result.last, 12)):
        row = next(row for row in rows(result) if row["step"] == step)
        close({name: row[name] for name in NUMBERS}, by_hand(params), rtol=1e-4)


@pytest.mark.parametrize("name", ["source_accuracy", "source_likelihood", "entropy", "bnm", "SND", "dev", "oracle"])
def test_the_best_step_is_the_first_of_the_highest_number(name):
    result = quick(name)
    number = validator(name).number
    values = [row[number] for row in rows(result)]
    assert result.monitor == number
    assert result.best_step == rows(result)[int(np.argmax(values))]["step"]
    assert result.best_value == np.float32(max(values))
    best = next(row for row in rows(result) if row["step"] == result.best_step)
    close(by_hand(result.params)[number], best[number], rtol=1e-4)


def test_labels_of_the_target_change_nothing_but_the_oracle(result):
    x, y = VALID["target"]
    shuffled = quick(valid=VALID | {"target": (x, (y + 1) % CLASSES)})
    without = quick(valid=VALID | {"target": (x, None)})
    for other in (shuffled, without):
        assert same(other.params, result.params)
        assert (other.best_step, other.best_value, other.monitor) == (result.best_step, result.best_value, "im")
        for a, b in zip(other.history, result.history):
            assert {n: v for n, v in a.items() if n != "oracle_accuracy"} == {
                n: v for n, v in b.items() if n != "oracle_accuracy"
            }
    assert all("oracle_accuracy" not in row for row in without.history)
    assert [r["oracle_accuracy"] for r in rows(shuffled)] != [r["oracle_accuracy"] for r in rows(result)]


def test_the_choice_does_not_change_the_training(result):
    other = quick("snd")
    assert same(other.last, result.last)
    assert rows(other) == rows(result)


@pytest.mark.slow
def test_a_stack_gives_what_its_runs_give(result):
    starts = jax.tree.map(lambda *a: jnp.stack(a), start(), start(2))
    stacked = fit_many(TANH, starts, ADAPT, train=TRAIN, valid=VALID, seeds=[0, 1], metric=validator("im"), **SHORT)
    assert stacked.best_value.shape == (2,)
    for i, alone in enumerate((result, quick(params=start(2), seed=1))):
        assert stacked.best_step[i] == alone.best_step
        close(stacked.of(i), alone.params)
        mine, own = rows(stacked, i), rows(alone)
        assert [row["step"] for row in mine] == [row["step"] for row in own]
        for a, b in zip(mine, own):
            close({n: a[n] for n in NUMBERS}, {n: b[n] for n in NUMBERS}, rtol=1e-4)


@pytest.mark.slow
def test_a_stack_on_a_shared_base_with_patience():
    starts = {"backbone": start()["backbone"], "head": jax.tree.map(lambda a: jnp.stack([a, 2 * a]), start()["head"])}
    options = SHORT | {"steps": 60, "patience": 2, "metric": validator("im", also=[])}
    frozen = plan(freeze("backbone/**"))
    train, valid = {"source": TRAIN["source"]}, {"target": (TARGET, None)}
    objective = cross_entropy(stream="source")
    stacked = fit_many(TANH, starts, objective, frozen, train, valid, seeds=[0, 1], shared="backbone/**", **options)
    for i in range(2):
        mine = [(row["step"], row["im"]) for row in rows(stacked, i)]
        best = max(range(len(mine)), key=lambda j: mine[j][1])
        assert stacked.best_step[i] == mine[best][0]
        assert len(mine) == best + 3 or mine[-1][0] == 60  # two without improvement, then it ends
    assert tuple(rows(stacked, 0)[0])[3:] == ("im",)


@pytest.mark.slow
def test_padding_counts_for_nothing():
    x = np.tile(TARGET, (18, 1))[:515]  # two batches of 258, one row of it padding
    valid = {"target": (x, None)}
    result = quick(validator("im", also=["certainty", "bnm"]), valid, steps=3)
    close({n: rows(result)[0][n] for n in ("certainty", "im", "bnm")},
          {n: by_hand(start(), valid)[n] for n in ("certainty", "im", "bnm")}, rtol=1e-4)  # fmt: skip


@pytest.mark.slow
def test_the_oracle_may_have_a_stream_of_its_own():
    valid = {"target": (TARGET, None), "test": (X[:20], Y[:20])}
    result = quick(validator("im", oracle="test"), valid)
    hits = np.mean(np.argmax(predict(TANH, result.last, X[:20]).logits, -1) == Y[:20])
    np.testing.assert_allclose(rows(result)[-1]["oracle_accuracy"], hits, rtol=1e-6)
    assert result.monitor == "im"


@pytest.mark.slow
def test_answers_that_are_no_numbers_are_never_the_best():
    def apply(params, x, *, train=False, **rest):
        output = TANH.apply(params, x, **rest)
        if train:
            return output
        moved = jnp.any(params["head"]["b"] != 0)  # from the first step on
        bad = moved & (jnp.arange(len(x)) == 0)
        return output._replace(logits=jnp.where(bad[:, None], jnp.nan, output.logits))

    result = quick(model=Model(TANH.init, apply, name="odd net"))
    assert result.best_step == 0
    assert np.isfinite(result.best_value)
    assert all(np.isnan([row[n] for n in NUMBERS]).all() for row in rows(result)[1:])


def test_a_step_needs_the_accuracy_on_the_source_that_is_asked_for():
    free, bound = quick("snd"), quick(validator("snd", at_least=0.7))
    assert rows(free) == rows(bound)
    allowed = [row for row in rows(bound) if row["source_accuracy"] >= 0.7]
    assert 0 < len(allowed) < len(rows(bound))
    assert bound.best_step == max(allowed, key=lambda row: row["snd"])["step"]
    assert bound.best_value == max(row["snd"] for row in allowed)
    none = quick(validator("snd", at_least=1.0))
    assert (none.best_step, none.best_value) == (0, -np.inf)


def test_the_start_is_not_chosen_where_it_may_not_be():
    free, bound = quick("snd"), quick(validator("snd", start=False))
    assert rows(free) == rows(bound)
    later = [row for row in rows(bound) if row["step"]]
    assert bound.best_step == max(later, key=lambda row: row["snd"])["step"] > 0
    assert quick(validator("snd", start=False), patience=1).steps > 0


@pytest.mark.slow
def test_early_stopping():
    result = quick("certainty", optimizer=optax.sgd(0.0), steps=40, patience=2)
    assert (result.steps, int(result.best_step)) == (6, 0)


def test_a_continued_run_is_the_unbroken_one(tmp_path, result):
    class StopError(Exception):
        pass

    def stop(row):
        if row["step"] == 9 and row["split"] == "valid":
            raise StopError

    with pytest.raises(StopError):
        quick(run_dir=tmp_path, save_every=2, on_log=[stop])
    again = quick(run_dir=tmp_path, save_every=2)
    assert same(again.params, result.params)
    assert again.history == result.history == tuple(read_rows(tmp_path / "metrics.jsonl"))
    with pytest.raises(ValueError, match="evaluation program"):
        quick(validator("im", also=["snd"]), run_dir=tmp_path, save_every=2)


@pytest.mark.slow
def test_with_64_bits():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), start())
        train, valid = ({n: (x.astype(np.float64), y) for n, (x, y) in d.items()} for d in (TRAIN, VALID))
        given = SHORT | {"metric": validator("im", also=[]), "steps": 3}
        result = fit(TANH, wide, ADAPT, train=train, valid=valid, **given)
        assert result.best_value.dtype == np.float32
        assert result.best_value == max(row["im"] for row in rows(result))


def with_none(name):
    return VALID | {name: (VALID[name][0], None)}


@pytest.mark.parametrize(
    ("name", "valid", "message"),
    [
        ("im", {"source": VALID["source"]}, "'im' reads the validation stream 'target'; there are: 'source'"),
        ("dev", {n: VALID[n] for n in ("source", "target")}, "'dev' reads the validation stream 'source_train'"),
        ("oracle", with_none("target"), "'oracle' needs labels of the validation stream 'target', which has none"),
        ("source_accuracy", with_none("source"), "'source_accuracy' needs labels of the validation stream 'source'"),
        ("im", VALID | {"targets": VALID["target"]}, "the validation streams 'source', .* and no 'targets'. Did"),
        ("im", VALID["target"], "reads validation data by stream, as valid={.*; found tuple"),
        ("im", None, "reads validation data by stream, as valid={.*; found NoneType"),
        ("im", {"target": (TARGET[:1], None)}, r"\(target\) need two examples or more; found 1"),
        ("im", {"target": (TARGET[:0], None)}, r"\(target\) needs inputs, at least one"),
        ("im", {"target": (TARGET[:, :3], None)}, r"cannot take inputs float32\[N, 3\] of the val"),
        ("im", {"target": (TARGET, Y[:30] + 1)}, r"labels of the validation data \(target\) go from 1 to 3; tanh net"),
        ("im", {"target": (TARGET, Y[:30] / 2)}, r"labels of .*\(target\) should be classes, integers"),
        ("im", {"target": stream([(x, 0) for x in TARGET])}, r"\(target\) are a stream, and a validator needs arrays"),
    ],
)  # fmt: skip
def test_validation_data_that_do_not_fit(name, valid, message):
    with pytest.raises(FitError, match=message):
        quick(name, valid)


def test_options_that_do_not_fit():
    with pytest.raises(FitError, match="says what chooses: leave monitor and minimize out"):
        quick(monitor="snd")
    for metric in (None, classification(CLASSES)):
        with pytest.raises(FitError, match=r'valid is a dict by stream.*metric=tl.validator\("im"\)'):
            fit(TANH, start(), ADAPT, train=TRAIN, valid=VALID, **SHORT | {"metric": metric})
    for data in (VALID, (X, Y)):
        with pytest.raises(FitError, match=r"or what tl\.validator gives; found 'im'"):
            fit(TANH, start(), ADAPT, train=TRAIN, valid=data, **SHORT | {"metric": "im"})
    single = Model(lambda key, x: {"w": jnp.zeros((5, 1))}, lambda p, x, **_: Output(x @ p["w"], x), name="line")
    with pytest.raises(FitError, match="line has 1 output, and validators read those of two classes or more"):
        quick(model=single, params=single.init(None, X))
