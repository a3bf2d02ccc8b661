"""Whole runs with data that have no labels: they end better than without them, and resume bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tljax as tl
from tljax.objectives import Scene
from tljax.objectives.stream import StreamError, name_of
from tljax.training import FitError
from tljax.training.streams import passes
from tljax.types import Batch, Output

X, Y = np.random.default_rng(0).normal(size=(12, 8)).astype("float32"), np.arange(12, dtype="int32") % 3


def accuracy(model, params, x, y):
    return float(np.mean(tl.predict(model, params, x).logits.argmax(-1) == y))


def turned_domains(angle=50, n=400):
    """Three clusters, and the same turned and shifted."""
    rng = np.random.default_rng(0)
    centres = np.array([[2, 0], [-1, 1.7], [-1, -1.7]])

    def draw():
        y = rng.integers(0, 3, n).astype("int32")
        return (centres[y] + 0.45 * rng.normal(size=(n, 2))), y

    t = np.deg2rad(angle)
    (xs, ys), (xt, yt) = draw(), draw()
    xt = xt @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) + np.array([[0.3, 0]])
    return (xs.astype("float32"), ys), (xt.astype("float32"), yt)


@pytest.mark.slow
def test_aligned_and_unconfused_targets():
    """DAN and MCC against the source alone, on a target turned by 50 degrees."""
    (xs, ys), (xt, yt) = turned_domains()
    model = tl.models.mlp((16, 16), num_classes=3)
    start = model.init(jax.random.key(0), xs)

    def run(objective):
        data = {"source": (xs, ys), "target": (xt, None)}
        given = {"optimizer": optax.adam(3e-3), "steps": 300, "batch_size": 64, "progress": False}
        return accuracy(model, tl.fit(model, start, objective, train=data, **given).params, xt, yt)

    alone = run(tl.cross_entropy(stream="source"))
    assert alone < 0.92
    for term in (tl.dan(), tl.mcc()):
        assert run(tl.cross_entropy() + term) > alone + 0.05


@pytest.mark.slow
def test_two_labels_a_class_and_many_without():
    """Mean teacher and FixMatch against the labelled four alone: two clusters along the first of eight directions."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400).astype("int32")
    x = rng.normal(size=(400, 8))
    x[:, 0] = 2 * (2 * y - 1) + 0.4 * x[:, 0]
    x = x.astype("float32")
    few = np.concatenate([np.flatnonzero(y == c)[:2] for c in (0, 1)])
    model = tl.models.mlp((32,), num_classes=2)
    start = model.init(jax.random.key(1), x)
    blur = lambda by: lambda key, batch: batch._replace(x=batch.x + by * jax.random.normal(key, batch.x.shape))  # noqa: E731

    def run(term=None):
        data, sizes, given = {"train": (x[few], y[few])}, {"train": 4}, {}
        if term is not None:
            data, sizes = data | {"unlabelled": (x, None)}, sizes | {"unlabelled": 64}
            given["views"] = {"weak": "unlabelled", "strong": "unlabelled"}
            given["augment"] = {"weak": blur(0.1), "strong": blur(0.7)}
        objective = tl.cross_entropy() if term is None else tl.cross_entropy() + term
        given |= {"optimizer": optax.adam(3e-3), "steps": 300, "batch_size": sizes, "progress": False, "seed": 1}
        return accuracy(model, tl.fit(model, start, objective, train=data, **given).params, x, y)

    alone = run()
    assert alone < 0.9
    for term in (5 * (tl.ramp_up(steps=200) * tl.mean_teacher(decay=0.97)), tl.fixmatch(threshold=0.9)):
        assert run(term) > alone + 0.08


@pytest.mark.slow
def test_the_teacher_moves_once_a_step_whatever_the_microbatches():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), (np.arange(32) % 2).astype("int32")
    model = tl.models.mlp((6,), num_classes=2)
    objective = tl.cross_entropy() + 3 * tl.mean_teacher(decay=0.8, weak="train", strong="train")

    def run(accumulate):
        return tl.fit(
            model, model.init(jax.random.key(0), x), objective, train=(x, y), optimizer=optax.adam(0.03), steps=6,
            batch_size=16, accumulate=accumulate, log_every=1, progress=False,
        )  # fmt: skip

    whole, parts = run(1), run(4)
    losses = [[row["mean_teacher"] for row in result.history] for result in (whole, parts)]
    assert max(losses[0]) > 1e-4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole.last, parts.last)


@pytest.mark.slow
def test_the_teacher_survives_a_stop(tmp_path):
    """A run that broke off in the middle ends as one that did not; all its losses are made with the teacher."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), (np.arange(32) % 2).astype("int32")
    model = tl.models.mlp((6,), num_classes=2, norm="batch", dropout=0.3)
    start = model.init(jax.random.key(0), x)
    objective = tl.cross_entropy() + 3 * tl.mean_teacher(decay=0.8, weak="unlabelled", strong="unlabelled")
    optimizer = optax.adam(0.03)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(row):
        if row["step"] == 6:
            raise Stop

    def run(folder, **given):
        data = {"train": (x[:8], y[:8]), "unlabelled": (x, None)}
        return tl.fit(
            model, start, objective, train=data, optimizer=optimizer, steps=9, batch_size=8, log_every=1, save_every=2,
            run_dir=tmp_path / folder, progress=False, **given,
        )  # fmt: skip

    whole = run("whole")
    with pytest.raises(Stop):
        run("broken", on_log=[stop])
    resumed = run("broken")
    assert resumed.history == whole.history
    last = [jax.tree.leaves(jax.tree.map(np.asarray, result.last)) for result in (whole, resumed)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*last, strict=True))


def test_a_batch_shared_with_the_source():
    """MCC joins the target to the labelled stream, whatever that is called; DAN does not."""
    assert passes(tl.cross_entropy() + tl.mcc()) == [("train", "target")]
    assert passes(tl.cross_entropy() + tl.mcc() + tl.dan()) == [("target", "source")]
    assert passes(tl.cross_entropy() + tl.dan()) == [("source",), ("target",)]


def test_the_main_stream_of_a_step_may_be_called_source():
    model, x, y = tl.models.mlp((4,), num_classes=2), jnp.ones((4, 3)), jnp.arange(4) % 2
    params = model.init(jax.random.key(0), x)
    both = tl.cross_entropy() + tl.entropy_minimization() + tl.mcc()
    step = tl.make_step(model, both, tl.plan().resolve(params), optax.sgd(0.1))
    found = []
    for name in ("train", "source"):
        batches = {name: Batch(x, y), "target": Batch(2 * x)}
        found.append(jax.device_get(jax.jit(step.update)(step.init(params, batches, seed=0), batches)[1]))
    assert found[0] == found[1]
    with pytest.raises(StreamError, match=r"mcc\(\) reads the stream 'target'; this step has: 'source'"):
        step.init(params, {"source": Batch(x, y)}, seed=0)


@pytest.mark.parametrize("name", ["train", "source"])
def test_the_labelled_stream_has_one_order_and_one_set_of_options(name):
    """Whatever it is called, and whatever else is read: so methods are compared on the same batches."""
    seen = {}

    def look(term):
        def value(scene):
            rows = scene.batches[name_of(scene, "train", "look")].index
            jax.debug.callback(lambda rows: seen.setdefault(str(term), rows.tolist()), rows)
            return 0.0, {}

        return term + tl.stateless(value, "look")

    model = tl.models.mlp((4,), num_classes=3)
    start, fit = model.init(jax.random.key(0), X), functools.partial(tl.fit, optimizer=optax.sgd(0.1), steps=1)
    fit(model, start, look(tl.cross_entropy()), train=(X, Y), batch_size=4, progress=False)
    for term in (tl.mcc(), tl.dann(), tl.bnm()):
        fit(
            model, start, look(tl.cross_entropy() + term), train={name: (X, Y), "target": (X, None)}, progress=False,
            batch_size={name: 4, "target": 2}, augment={name: lambda key, batch: batch},
        )  # fmt: skip
    jax.effects_barrier()
    assert len(seen) == 4
    assert len(set(map(str, seen.values()))) == 1
    with pytest.raises(FitError, match="batch_size: there is no stream 'tagret'"):
        fit(model, start, tl.cross_entropy(), train=(X, Y), batch_size={"train": 4, "tagret": 4})


@pytest.mark.parametrize(
    ("other", "message"),
    [(X[:, :2], r"'source' has \[8\], 'target' has \[2\]: bring"), ({"a": X}, r"'target' has {'a': \[8\]}: bring")],
)
def test_streams_of_one_batch_have_one_shape(other, message):
    model = tl.models.mlp((4,), num_classes=3)
    with pytest.raises(StreamError, match=message):
        tl.fit(
            model, model.init(jax.random.key(0), X), tl.cross_entropy() + tl.dann(), optimizer=optax.sgd(0.1), steps=1,
            train={"source": (X, Y), "target": (other, None)}, progress=False,
        )  # fmt: skip


TERMS = [
    tl.dan, tl.jan, tl.coral, tl.swd, tl.afn, tl.mcc, tl.entropy_minimization, tl.information_maximization, tl.bnm,
    lambda: tl.fixmatch(weak="source", strong="target"),
    lambda: tl.mean_teacher(weak="source", strong="target"),
    lambda: tl.vrex(("source", "target")),
    lambda: tl.irm(("source", "target")),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_terms_under_x64(dtype):
    """With 64-bit types on, a loss is as wide as the outputs, and at least float32; schedules and draws adapt."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        draw = {name: jnp.asarray(rng.normal(size=(6, 4)), dtype) for name in ("source", "target")}
        params = {"w": jnp.ones((), dtype)}

        def values(params):
            outputs = {name: Output(params["w"] * x, params["w"] * x) for name, x in draw.items()}
            batches = {name: Batch(x, jnp.arange(6) % 4, jnp.ones(6, "float32")) for name, x in draw.items()}
            evaluate = lambda p, x: Output(p["w"] * x, x)  # noqa: E731
            scene = Scene(outputs, batches, params, None, jnp.int32(9), jax.random.key(0), evaluate)
            terms = [tl.ramp_up(steps=10) * make() for make in TERMS]
            return [term.apply(term.init(scene.key, scene), scene)[0] for term in terms]

        for make, value in zip(TERMS, jax.eval_shape(values, params), strict=True):
            assert value.dtype == (dtype if dtype == "float64" else "float32"), make
