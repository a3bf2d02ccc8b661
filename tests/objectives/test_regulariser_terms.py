"""Regularisers in training steps: what they own, what they compare to, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tljax as tl
from tljax.data import cutmix, mixup
from tljax.models import mlp, resnet
from tljax.objectives import (
    HeadError,
    LabelError,
    LayerError,
    Owned,
    RelationshipError,
    StartError,
    StreamError,
    channel_attention,
    feature_map_distances,
)
from tljax.training import make_step
from tljax.types import Batch

RNG = np.random.default_rng(0)
MODEL, X, Y = mlp((6,), num_classes=3), RNG.normal(size=(24, 4)).astype("float32"), np.arange(24, dtype="int32") % 3
START = MODEL.init(jax.random.key(0), X)
MOVED = jax.tree.map(lambda a: a + 0.3 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), START)
HEAD = {"kernel": jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), "bias": jnp.arange(5, dtype=jnp.float32) / 5}
TABLE = jnp.asarray(RNG.dirichlet(np.ones(5), 3), jnp.float32)
HIDDEN = "backbone/block_00/dense"
BATCHES = {"train": Batch(jnp.asarray(X), jnp.asarray(Y))}


def step_of(objective, model=MODEL, optimizer=None):
    return make_step(model, objective, tl.plan().resolve(START), optimizer or optax.sgd(0.0))


def value(objective, params, batches=BATCHES):
    """The objective and its metrics at `params`, through a training step, and the state after it."""
    step = step_of(objective)
    state, metrics = jax.jit(lambda p, b: step.update(step.init(p, b, seed=0), b))(params, batches)
    return float(metrics["loss"]), metrics, state


def softmax(z):
    e = np.exp(np.asarray(z, "float64") - np.max(z, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def features(params, x=X):
    return np.asarray(MODEL.apply(params, x).features, "float64")


def source_logits(params, x=X):
    return features(params, x) @ np.asarray(HEAD["kernel"], "float64") + np.asarray(HEAD["bias"], "float64")


def kl(p, q):
    return float((p * (np.log(p) - np.log(q))).sum(-1).mean())


def test_lwf_by_hand_and_nothing_at_the_start():
    assert value(tl.lwf(START, HEAD), START)[0] == pytest.approx(0, abs=1e-6)
    found = value(tl.lwf(START, HEAD, temperature=2.0), MOVED)
    assert found[0] == pytest.approx(kl(softmax(source_logits(START) / 2), softmax(source_logits(MOVED) / 2)), rel=1e-4)
    assert float(found[1]["lwf"]) == pytest.approx(found[0])


@pytest.mark.slow
def test_lwf_keeps_its_head_or_trains_it():
    for learn in (False, True):
        term = tl.lwf(START, HEAD, learn_head=learn)
        step = step_of(term, optimizer=optax.sgd(0.1))
        first = step.init(MOVED, BATCHES, seed=0)
        last, _ = step.update(first, BATCHES)
        owned = Owned(last.trainable["terms"], last.terms)
        assert bool(jax.tree.leaves(owned.params)) is learn
        np.testing.assert_array_equal(owned.state["head"]["kernel"], HEAD["kernel"])
        if learn:
            assert not np.array_equal(owned.params["kernel"], HEAD["kernel"])


@pytest.mark.slow
def test_distillation_by_hand_from_another_architecture():
    teacher = mlp((9, 7), num_classes=3)
    params = teacher.init(jax.random.key(1), X)
    expected = kl(softmax(teacher.apply(params, X).logits / 3), softmax(MODEL.apply(MOVED, X).logits / 3))
    assert value(tl.distillation(teacher, params), MOVED)[0] == pytest.approx(expected, rel=1e-4)
    unlabelled = {"train": Batch(jnp.asarray(X), None)}
    assert value(tl.distillation(teacher, params, rescaled=True), MOVED, unlabelled)[0] == pytest.approx(
        9 * expected, rel=1e-4
    )
    with pytest.raises(LabelError, match=r"teacher gives logits \[24, 4\] and the student \[24, 3\]"):
        value(tl.distillation(mlp((9,), num_classes=4), mlp((9,), num_classes=4).init(jax.random.key(0), X)), MOVED)


def test_co_tuning_by_hand_with_hard_and_soft_labels():
    log_p = np.log(softmax(source_logits(MOVED)))
    table = np.asarray(TABLE, "float64")
    loss, _, state = value(tl.co_tuning(TABLE, HEAD), MOVED)
    assert loss == pytest.approx(-(table[Y] * log_p).sum(-1).mean(), rel=1e-5)
    assert set(state.trainable["terms"]) == {"kernel", "bias"}
    soft = RNG.dirichlet(np.ones(3), 24).astype("float32")
    found = value(tl.co_tuning(TABLE, HEAD), MOVED, {"train": Batch(jnp.asarray(X), jnp.asarray(soft))})[0]
    assert found == pytest.approx(-((soft @ table) * log_p).sum(-1).mean(), rel=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("attention", [None, jnp.asarray(softmax(np.arange(6.0)), jnp.float32)])
def test_delta_by_hand_and_nothing_at_the_start(attention):
    given = None if attention is None else {HIDDEN: attention}
    term = tl.delta(START, [HIDDEN], attention=given, head_decay=0.5)

    def dense(p):
        own = p["backbone"]["block_00"]["dense"]
        return X @ own["kernel"] + own["bias"][None]

    maps = feature_map_distances(dense(MOVED), dense(START), attention=attention)
    head = 0.25 * sum(float((np.asarray(a, "float64") ** 2).sum()) for a in jax.tree.leaves(MOVED["head"]))
    loss, metrics, _ = value(term, MOVED)
    assert loss == pytest.approx(float(maps.sum()) + head, rel=1e-5)
    assert float(metrics["delta"]) == pytest.approx(loss)
    at_start = value(tl.delta(START, [HIDDEN], attention=given, head_decay=0.0), START)
    assert at_start[0] == at_start[1]["grad_norm"] == 0


def test_a_start_may_have_another_head():
    other = START | {"head": {"kernel": jnp.ones((6, 9)), "bias": jnp.ones(9)}}
    assert value(tl.lwf(other, HEAD) + tl.delta(other, [HIDDEN], head_decay=0.0), START)[0] == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.slow
def test_padding_does_not_count():
    weight = jnp.asarray(np.arange(24) < 12, jnp.float32)
    padded = {"train": Batch(jnp.asarray(X), jnp.asarray(Y), weight)}
    half = {"train": Batch(jnp.asarray(X[:12]), jnp.asarray(Y[:12]))}
    for term in (tl.delta(START, [HIDDEN]), tl.lwf(START, HEAD), tl.co_tuning(TABLE, HEAD)):
        assert value(term, MOVED, padded)[0] == pytest.approx(value(term, MOVED, half)[0], rel=1e-5)


def test_co_tuning_of_a_class_that_is_outside_is_nan_and_of_padding_nothing():
    term, outside = tl.co_tuning(TABLE, HEAD), jnp.asarray(Y).at[:2].set(jnp.array([-1, 3]))
    assert np.isnan(value(term, MOVED, {"train": Batch(jnp.asarray(X), outside)})[0])
    weight = jnp.ones(24).at[:2].set(0.0)
    loss, metrics, _ = value(term, MOVED, {"train": Batch(jnp.asarray(X), outside, weight)})
    rest = value(term, MOVED, {"train": Batch(jnp.asarray(X[2:]), jnp.asarray(Y[2:]))})
    assert loss == pytest.approx(rest[0], rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(rest[1]["grad_norm"]), rel=1e-5)


def test_delta_counts_examples_by_their_weight():
    term, weight = tl.delta(START, [HIDDEN], head_decay=0.0), jnp.full(24, 0.25)
    weighted = value(term, MOVED, {"train": Batch(jnp.asarray(X), jnp.asarray(Y), weight)})[0]
    assert weighted == pytest.approx(value(term, MOVED)[0] / 4, rel=1e-5)


WIDE = {"kernel": jnp.ones((8, 5))}


@pytest.mark.parametrize(
    ("term", "error", "message"),
    [
        (lambda: tl.lwf(START, WIDE), HeadError, "reads 8 features, and the model has 6"),
        (lambda: tl.lwf(START, jnp.ones((6, 5))), HeadError, "should be linear"),
        (lambda: tl.lwf(START, HEAD | {"bias": jnp.ones(4)}), HeadError, r"bias \[4\], kernel \[6, 5\]"),
        (lambda: tl.lwf(START["backbone"], HEAD), StartError, r"no 'backbone/block_00/dense/.*nearest are"),
        (
            lambda: tl.lwf(mlp((7,), num_classes=3).init(jax.random.key(0), X), HEAD),
            StartError,
            r"block_00/dense/bias' has the shape \[6\] in the model and \[7\]",
        ),
        (lambda: tl.lwf(START, HEAD, temperature=-1.0), LabelError, r"temperature=-1[.]0; expected a number above 0"),
        (lambda: tl.co_tuning(jnp.eye(3, 4), HEAD), HeadError, r"5 categories, .* 4"),
        (lambda: tl.co_tuning(2 * TABLE, HEAD), RelationshipError, "every row"),
        (lambda: tl.co_tuning(TABLE[:2], HEAD), LabelError, "3 classes, the relationship 2"),
        (lambda: tl.delta(START, ["backbone/block_0/dense"]), LayerError, r"block_0/dense'; the nearest.*block_00"),
        (lambda: tl.delta(START, []), LayerError, "one layer or more"),
        (lambda: tl.delta(START, [HIDDEN], attention={"head": jnp.ones(3)}), LayerError, "attention for each"),
        (lambda: tl.delta(START, [HIDDEN], attention={HIDDEN: jnp.ones(4)}), LayerError, "6 channels"),
        (lambda: tl.delta({}, [HIDDEN]), StartError, "nearest are none"),
    ],
)  # fmt: skip
def test_bad_input(term, error, message):
    with pytest.raises(error, match=message):
        value(term(), START)


def test_labels_are_needed_where_they_are_read():
    with pytest.raises(StreamError, match=r"co_tuning.*needs labels"):
        value(tl.co_tuning(TABLE, HEAD), START, {"train": Batch(jnp.asarray(X), None)})


def all_of(start, layers, model, params):
    return (
        tl.cross_entropy()
        + 0.01 * tl.l2_sp(start)
        + 0.01 * tl.delta(start, layers)
        + 1e-3 * tl.bss()
        + 4.0 * tl.lwf(start, HEAD)
        + 2.3 * tl.co_tuning(TABLE, HEAD)
        + tl.distillation(model, params)
    )


def fitted(model, start, objective, x, **more):
    return tl.fit(
        model, start, objective, train=(x, Y), optimizer=optax.sgd(0.05), steps=3, batch_size=8, log_every=1,
        progress=False, **more,
    )  # fmt: skip


@pytest.mark.slow
def test_all_together_in_fit_with_mixup():
    result = fitted(MODEL, MOVED, all_of(START, [HIDDEN], MODEL, START), X, augment=mixup(3))
    names = {"l2_sp", "delta", "bss", "lwf", "co_tuning", "distillation", "cross_entropy"}
    assert len(result.history) == 3
    for row in result.history:
        assert names <= set(row)
        assert np.isfinite([row[name] for name in names]).all()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((START, MOVED, HEAD, TABLE)))


@pytest.mark.slow
def test_all_together_on_images_with_cutmix():
    model = resnet(8, num_classes=3, width=2)
    x = RNG.normal(size=(24, 8, 8, 3)).astype("float32")
    start = model.init(jax.random.key(0), x)
    head = {"kernel": jnp.ones((8, 5)), "bias": jnp.zeros(5)}
    terms = (
        tl.cross_entropy()
        + 0.01 * tl.delta(start, [f"backbone/stage_{s}/block_00/conv_2" for s in (1, 2, 3)])
        + 1e-3 * tl.bss(k=2)
        + 4.0 * tl.lwf(start, head, learn_head=True)
        + 2.3 * tl.co_tuning(TABLE, head)
    )
    result = fitted(model, start, terms, x, augment=cutmix(3))
    assert np.isfinite([row["loss"] for row in result.history]).all()


@pytest.mark.slow
def test_channel_attention_is_the_loss_without_each_filter():
    model = resnet(8, num_classes=3, width=2)
    x = RNG.normal(size=(10, 8, 8, 3)).astype("float32")
    y = Y[:10]
    params = model.init(jax.random.key(0), x)
    layer = "backbone/stage_2/block_00/conv_2"
    run = jax.jit(lambda p: model.apply(p, x).logits)

    def loss(p):
        z = np.asarray(run(p), "float64")
        return float(-np.log(softmax(z))[np.arange(10), y].mean())

    increases = []
    for channel in range(4):
        kernel = np.array(params["backbone"]["stage_2"]["block_00"]["conv_2"]["kernel"])
        kernel[..., channel] = 0
        cut = jax.tree.map(lambda a: a, params)
        cut["backbone"]["stage_2"]["block_00"]["conv_2"] = {"kernel": jnp.asarray(kernel)}
        increases.append(loss(cut) - loss(params))
    standard = (np.array(increases) - np.mean(increases)) / np.std(increases)
    for batch_size, at_once in ((10, 1), (6, 4)):
        found = channel_attention(model, params, x, y, [layer], batch_size=batch_size, at_once=at_once)
        np.testing.assert_allclose(found[layer], softmax(standard / 5), rtol=2e-3)
    with pytest.raises(LayerError, match="no kernel with its channels"):
        channel_attention(model, params, x, y, ["backbone/stage_2/block_00/norm_1"])
    with pytest.raises(LayerError, match="no layer 'backbone/stage_4'; the nearest"):
        channel_attention(model, params, x, y, ["backbone/stage_4"])


@pytest.mark.slow
def test_channels_of_a_layer_that_nothing_needs_count_alike():
    model = mlp((6,), num_classes=3)
    params = model.init(jax.random.key(0), X)
    params["head"]["kernel"] = jnp.zeros((6, 3))
    np.testing.assert_allclose(channel_attention(model, params, X, Y, [HIDDEN])[HIDDEN], np.full(6, 1 / 6), rtol=1e-6)


@pytest.mark.slow
def test_without_forgetting_more_of_the_source_is_kept():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(600, 10)).astype("float32")
    old = (x @ rng.normal(size=(10, 4))).argmax(1).astype("int32")
    new = np.sin(3 * x @ rng.normal(size=(10, 3))).argmax(1).astype("int32")  # hard, so that features have to move
    source, model = mlp((64, 32), num_classes=4), mlp((64, 32), num_classes=3)
    options = {"optimizer": optax.adam(0.01), "steps": 300, "batch_size": 50, "progress": False}
    first = tl.fit(
        source, source.init(jax.random.key(0), x), tl.cross_entropy(), train=(x[:300], old[:300]), **options
    ).params
    start = {"backbone": first["backbone"], "head": model.init(jax.random.key(1), x)["head"]}
    kept, learnt = {}, {}
    for name, term in {
        "plain": tl.cross_entropy(),
        "lwf": tl.cross_entropy() + 4.0 * tl.lwf(start, first["head"]),
    }.items():
        params = tl.fit(model, start, term, train=(x[:300], new[:300]), **options).params
        guess = source.apply({"backbone": params["backbone"], "head": first["head"]}, x[300:]).logits.argmax(1)
        kept[name] = float((guess == old[300:]).mean())
        learnt[name] = float((model.apply(params, x[:300]).logits.argmax(1) == new[:300]).mean())
    before = float((source.apply(first, x[300:]).logits.argmax(1) == old[300:]).mean())
    assert kept["plain"] + 0.05 < kept["lwf"] <= before + 0.02
    assert min(learnt.values()) > 0.9
