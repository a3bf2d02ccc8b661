"""Joined streams, tapped layers, views, and phases, against the same written out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, TANH, WIDTH, batch, normed

from tljax.objectives import Owned, Phase, Term, cross_entropy, separate, stateless
from tljax.plans import freeze, plan
from tljax.training import FitError, NonFiniteError, fit, fit_many, make_step
from tljax.tree import NoMatchError, named_leaves
from tljax.types import Batch

X, Y, *_ = batch()["train"]
TARGET = X[:5] * 2 + 1
BOTH = ("source", "target")
DOMAINS = {"source": Batch(X, Y), "target": Batch(TARGET)}


def distance(**given):
    """A term that reads the features of both domains."""

    def value(scene):
        means = [jnp.mean(scene.outputs[name].features, axis=0) for name in BOTH]
        loss = jnp.sum(jnp.square(means[0] - means[1]))
        return loss, {"distance": loss}

    return dataclasses.replace(stateless(value, "distance()", *BOTH, joint=BOTH), **given)


def game(phases):
    """A vector that moves to where the source's mean feature is, while the backbone brings the target's there."""

    def init(key, scene):
        return Owned(jnp.zeros(WIDTH), jnp.int32(0))

    def apply(owned, scene):
        at = jax.lax.stop_gradient(owned.params) if scene.phase == "follow" else owned.params
        name = "target" if scene.phase == "follow" else "source"
        loss = jnp.sum(jnp.square(jnp.mean(scene.outputs[name].features, axis=0) - at))
        return loss, owned.state + 1, {f"game_{scene.phase}": loss}

    return Term(apply, init, "game()", BOTH, phases=phases)


PHASES = (Phase("lead"), Phase("follow", learns="backbone/**", owned=False, repeat=2, others=False))


def one_step(model, objective, optimizer, params, batches=DOMAINS, rules=plan(), n=1, **options):  # noqa: B008
    step = make_step(model, objective, rules.resolve(params), optimizer, **options)
    state, metrics = step.init(params, batches, seed=0), None
    for _ in range(n):
        state, metrics = jax.jit(step.update)(state, batches)
    return state, metrics


def same(a, b, tolerance=1e-6):
    a, b = named_leaves(a), named_leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_joined_streams_share_the_statistics_of_the_batch():
    model = normed()
    params = model.init(jax.random.key(1), X)
    term = cross_entropy() + distance()

    def by_hand(joint):
        if joint:
            out = model.apply(params, jnp.concatenate([X, TARGET]), train=True)
            f, logits, stats = out.features, out.logits[: len(X)], out.stats
            return f[: len(X)], f[len(X) :], logits, stats
        first = model.apply(params, X, train=True)
        merged = jax.tree.map(lambda new, old: old if new is None else new, first.stats, params, is_leaf=_hole)
        second = model.apply(merged, TARGET, train=True)
        return first.features, second.features, first.logits, second.stats

    for objective, joint in ((term, True), (separate(term), False)):
        state, metrics = one_step(model, objective, optax.sgd(0.0), params)
        source, target, logits, stats = by_hand(joint)
        gap = jnp.sum(jnp.square(source.mean(0) - target.mean(0)))
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()
        np.testing.assert_allclose(metrics["loss"], gap + entropy, rtol=1e-5)
        same(state.stats, stats)


def _hole(node):
    return node is None


def test_layers_that_a_term_asks_for_are_there_with_gradients():
    model = normed()
    params = model.init(jax.random.key(1), X)

    def value(scene):
        loss = jnp.sum(scene.layers["source"]["backbone/dense_0"]) / len(X)
        return loss, {"sum": loss}

    term = dataclasses.replace(stateless(value, "sum()", "source"), layers=("backbone/dense_0",))
    state, metrics = one_step(model, term, optax.sgd(1.0), params)
    dense = params["backbone"]["dense_0"]
    np.testing.assert_allclose(metrics["sum"], jnp.mean(X @ dense["kernel"], axis=0).sum(), rtol=1e-5)
    moved = dense["kernel"] - state.params["backbone"]["dense_0"]["kernel"]
    np.testing.assert_allclose(moved, jnp.tile(X.mean(0)[:, None], (1, WIDTH)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_phases_are_updates_one_after_the_other(accumulate):
    params, optimizer, objective = TANH.init(jax.random.key(1), X), optax.sgd(0.1, momentum=0.9), game(PHASES)
    batches = {"source": Batch(X, Y), "target": Batch(TARGET[:4])}
    if accumulate == 2:  # microbatches that are alike: the same gradients
        batches = jax.tree.map(lambda a: jnp.repeat(a, 2, axis=0), batches)
    state, metrics = one_step(
        TANH, 0.5 * cross_entropy() + objective, optimizer, params, batches, n=3, accumulate=accumulate
    )

    def lead(model, at):
        out = TANH.apply(model, X)
        gap = jnp.sum(jnp.square(out.features.mean(0) - at))
        return 0.5 * optax.softmax_cross_entropy_with_integer_labels(out.logits, Y).mean() + gap

    def follow(backbone, head, at):
        return jnp.sum(jnp.square(TANH.apply({"backbone": backbone, "head": head}, TARGET[:4]).features.mean(0) - at))

    now = {"backbone": params["backbone"], "head": (params["head"], jnp.zeros(WIDTH))}
    opt = {name: optimizer.init(tree) for name, tree in now.items()}

    def move(name, grads):
        updates, opt[name] = optimizer.update(grads, opt[name])
        now[name] = optax.apply_updates(now[name], updates)

    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            model = {"backbone": now["backbone"], "head": now["head"][0]}
            grads, own = jax.grad(lead, argnums=(0, 1))(model, now["head"][1])
            move("backbone", grads["backbone"])
            move("head", (grads["head"], own))
            for _ in range(2):
                move("backbone", jax.grad(follow)(now["backbone"], *now["head"]))
    same(state.params, {"backbone": now["backbone"], "head": now["head"][0]})
    same(state.trainable["terms"][1], now["head"][1])
    assert int(state.terms[1]) == 9 * accumulate
    assert int(state.step) == 3
    assert {"loss", "loss_follow", "game_lead", "game_follow", "cross_entropy", "grad_norm"} <= metrics.keys()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_moves_once_a_step_moves_once_beside_phases(accumulate):
    def apply(owned, scene):
        asked, moved = owned.state
        return jnp.zeros(()), (asked + 1, moved + jnp.where(jnp.asarray(scene.micro) == 0, 1, 0)), {}

    slow = Term(apply, lambda key, scene: Owned(state=(jnp.int32(0), jnp.int32(0))), "slow()", ("source",))
    phases = (Phase("lead"), Phase("again"), *PHASES[1:])
    batches = {"source": Batch(X[:4], Y[:4]), "target": Batch(TARGET[:4])}
    params = TANH.init(jax.random.key(1), X)
    objective = cross_entropy() + slow + game(phases)
    state, _ = one_step(TANH, objective, optax.sgd(0.1), params, batches, n=3, accumulate=accumulate)
    assert [int(n) for n in state.terms[0][1]] == [3 * 2 * accumulate, 3]


def test_what_learns_in_no_phase_stays():
    params = TANH.init(jax.random.key(1), X)
    phases = (Phase("lead", learns=None), Phase("follow", learns="backbone/w", owned=False, others=False))
    state, _ = one_step(TANH, cross_entropy() + game(phases), optax.adam(0.1), params)
    moved = {
        name: not np.array_equal(new, old)
        for (name, new), old in zip(named_leaves(state.params).items(), named_leaves(params).values())
    }
    assert moved == {"backbone/b": False, "backbone/w": True, "head/b": False, "head/w": False}
    assert np.any(np.asarray(state.trainable["terms"][1]))


def test_a_phase_without_anything_that_learns_is_a_mistake():
    params = TANH.init(jax.random.key(1), X)
    with pytest.raises(NoMatchError, match=r"game\(\).*'follow' 'backbone/\*\*' should learn, and does not"):
        one_step(TANH, cross_entropy() + game(PHASES), optax.sgd(0.1), params, rules=plan(freeze("backbone/**")))


def seen(name, kept):
    def value(scene):
        jax.debug.callback(lambda x: kept.append((name, np.asarray(x))), scene.batches[name].x)
        return jnp.float32(0), {}

    return stateless(value, name, name)


def test_views_show_the_same_examples_each_in_its_way():
    kept = []
    objective = cross_entropy() + seen("weak", kept) + seen("strong", kept)
    data = np.arange(10.0 * X.shape[1], dtype=np.float32).reshape(10, -1)
    noise = lambda key, batch: batch._replace(x=batch.x + jax.random.uniform(key, batch.x.shape) / 2)  # noqa: E731
    start, augment = TANH.init(jax.random.key(0), X), {"weak": noise, "strong": noise}
    fit(
        TANH, start, objective, train={"train": (X, Y), "unlabelled": (data, None)}, optimizer=optax.sgd(0.0), steps=4,
        batch_size={"train": 4, "unlabelled": 5}, views={"weak": "unlabelled", "strong": "unlabelled"},
        augment=augment, progress=False,
    )  # fmt: skip
    jax.effects_barrier()
    weak, strong = ([x for which, x in kept if which == name] for name in ("weak", "strong"))
    assert len(weak) == len(strong) == 4
    assert weak[0].shape == (5, X.shape[1])
    for a, b in zip(weak, strong):
        assert np.array_equal(np.floor(a), np.floor(b))
        assert not np.array_equal(a, b)
    assert sorted(np.concatenate([np.floor(a)[:, 0] for a in weak[:2]])) == sorted(data[:, 0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": {"weak": "nothing"}}, "where 'weak' is a view of 'nothing'; train has 'train', 'unlabelled'"),
        ({"views": {"faint": "unlabelled"}}, r"no view 'faint', for the objective .* does not read it"),
        ({"views": {"train": "unlabelled"}}, "no view 'train', for train has a stream of that name"),
        (
            {"views": {"weak": "unlabelled"}, "augment": {"wek": None}},
            "no stream 'wek'; there are 'train', 'unlabelled'",
        ),
    ],
)
def test_views_that_cannot_be(given, message):
    with pytest.raises(FitError, match=message):
        fit(
            TANH, TANH.init(jax.random.key(0), X), cross_entropy() + seen("weak", []),
            train={"train": (X, Y), "unlabelled": (X, None)}, optimizer=optax.sgd(0.0), steps=1, **given,
        )  # fmt: skip


@pytest.mark.slow
def test_domains_of_any_size_and_the_source_by_either_name():
    """A domain that is smaller than its batch is drawn from more than once."""
    params = TANH.init(jax.random.key(0), X)
    for name in ("source", "train"):
        data = {name: (X, Y), "target": (X[:1], None)}
        objective = cross_entropy() + (distance() if name == "source" else stateless(_none, "none", "target"))
        result = fit(
            TANH, params, objective, train=data, optimizer=optax.sgd(0.1), steps=3, batch_size=8, progress=False
        )
        assert np.isfinite(result.history[-1]["loss"])


def _none(scene):
    return jnp.mean(scene.outputs["target"].features), {}


def test_the_term_that_became_nan_is_named():
    def value(scene):
        loss = jnp.log(jnp.float32(4) - scene.step.astype(jnp.float32))
        return loss, {"fragile": loss}

    params = TANH.init(jax.random.key(0), X)
    with pytest.raises(NonFiniteError, match=r"at step 5: of its terms fragile\. Lower"):
        fit(
            TANH, params, cross_entropy() + stateless(value, "fragile()"), train=(X, Y), optimizer=optax.sgd(0.1),
            steps=20, log_every=20, progress=False,
        )  # fmt: skip


def test_a_metric_of_a_term_is_no_loss_whatever_its_name():
    """What a term only logs may be NaN, as a mean over no examples is."""

    def value(scene):
        return jnp.float32(0), {"loss_unsup": jnp.float32(jnp.nan), "follow_loss": jnp.float32(jnp.nan)}

    result = fit(
        TANH, TANH.init(jax.random.key(0), X), cross_entropy() + stateless(value, "mine()"), train=(X, Y),
        optimizer=optax.sgd(0.1), steps=3, progress=False,
    )  # fmt: skip
    assert np.isfinite(result.history[-1]["loss"])
    assert np.isnan(result.history[-1]["loss_unsup"])


def test_a_step_tells_which_metrics_it_minimises():
    objective = cross_entropy() + game((Phase("lead", repeat=2), PHASES[1]))
    params = TANH.init(jax.random.key(0), X)
    step = make_step(TANH, objective, plan().resolve(params), optax.sgd(0.1))
    assert step.losses == ("loss", "loss_lead", "loss_follow")
    _, metrics = step.update(step.init(params, DOMAINS, seed=0), DOMAINS)
    assert {name for name in metrics if name.startswith("loss")} == set(step.losses)


@pytest.mark.parametrize(
    ("fails_in", "told"), [("lead", "the loss became"), ("follow", "the loss of the phase follow")]
)
def test_the_phase_whose_loss_became_nan_is_named(fails_in, told):
    def apply(owned, scene):
        fragile = jnp.log(jnp.float32(2) - scene.step.astype(jnp.float32))
        loss = fragile if scene.phase == fails_in else jnp.float32(0)
        return loss, owned.state, {f"of_{scene.phase}": loss}

    term = Term(apply, lambda key, scene: Owned((), ()), "fragile()", BOTH, phases=PHASES)
    with pytest.raises(NonFiniteError, match=f"{told}.*at step 3: of its terms of_{fails_in}"):
        fit(
            TANH, TANH.init(jax.random.key(0), X), cross_entropy() + term,
            train={"source": (X, Y), "target": (TARGET, None)}, optimizer=optax.sgd(0.0), steps=9, batch_size=4,
            progress=False,
        )  # fmt: skip


@pytest.mark.slow
def test_phases_in_a_stack_of_runs():
    starts = jax.vmap(lambda key: TANH.init(key, X))(jax.random.split(jax.random.key(0), 2))
    data = {"source": (X, Y), "target": (TARGET, None)}
    common = {"train": data, "optimizer": optax.sgd(0.1), "steps": 3, "batch_size": 4, "progress": False}
    many = fit_many(TANH, starts, cross_entropy() + game(PHASES), seeds=[3, 4], **common)
    alone = fit(TANH, jax.tree.map(lambda a: a[1], starts), cross_entropy() + game(PHASES), seed=4, **common)
    same(jax.tree.map(lambda a: a[1], many.params), alone.params)
    assert jax.tree.leaves(alone.params)[0].shape[-1] in (WIDTH, CLASSES)


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.slow
def test_a_run_with_phases_continues_where_it_was_stopped(tmp_path):
    """Parameters, statistics and state that terms own are part of the run."""

    def go(folder, *on_log):
        return fit(
            TANH, TANH.init(jax.random.key(0), X), objective, train={"source": (X, Y), "target": (TARGET, None)},
            optimizer=optax.adam(0.1), steps=6, batch_size=4, log_every=1, save_every=2, run_dir=folder, on_log=on_log,
            progress=False,
        )  # fmt: skip

    def stop(row):
        if row["step"] == 5:
            raise Stopped

    objective = cross_entropy() + game(PHASES)
    with pytest.raises(Stopped):
        go(tmp_path / "twice", stop)
    again, whole = go(tmp_path / "twice"), go(tmp_path / "once")
    assert again.history == whole.history
    for a, b in zip(jax.tree.leaves(again.last), jax.tree.leaves(whole.last), strict=True):
        np.testing.assert_array_equal(a, b)
