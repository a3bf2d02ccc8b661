"""Which example is which, what learns, further passes, and what terms own after the run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES

import tljax as tl
from tljax.objectives import Owned, Term, output_of
from tljax.training import make_step
from tljax.types import Batch

N = 40
X = np.stack([np.arange(N), np.zeros(N)], axis=1).astype("float32")
Y = (np.arange(N) % CLASSES).astype("int32")
MODEL = tl.models.mlp((6,), num_classes=CLASSES, dropout=0.5)
START = MODEL.init(jax.random.key(0), X)


def counting(stream="u"):
    """Counts how often each example came, and checks that it is the one that its index says."""

    def init(key, scene):
        return Owned((), jnp.zeros(N))

    def apply(owned, scene):
        batch = scene.batches[stream]
        right = jnp.mean((batch.x[:, 0].astype(jnp.int32) == batch.index).astype(jnp.float32))
        value = 0.0 * jnp.sum(scene.outputs[stream].logits)
        return value, owned.state.at[batch.index].add(1), {"right": right}

    return Term(apply, init, "counting()", (stream,))


def run(unlabelled, objective, **options):
    return tl.fit(
        MODEL, START, objective, train={"train": (X / N, Y), "u": unlabelled}, optimizer=optax.sgd(0.1), steps=10,
        batch_size=8, log_every=1, progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["memory", "stream"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=["whole", "microbatches"])
def test_terms_see_which_examples_of_the_data_a_batch_has(where, options):
    data = (X, None) if where == "memory" else tl.data.stream([(row, 0) for row in X])
    result = run(data, tl.cross_entropy() + counting(), **options)
    assert {row["right"] for row in result.history} == {1.0}
    np.testing.assert_array_equal(result.terms[1].state, np.full(N, 2.0))  # two epochs of 40


def test_views_show_the_same_examples_and_subsets_name_those_of_the_whole():
    def value(scene):
        alike = jnp.all(scene.batches["weak"].index == scene.batches["strong"].index)
        moved = jnp.mean(scene.batches["strong"].x[:, 0] - scene.batches["weak"].index.astype(jnp.float32))
        return 0.0 * jnp.sum(scene.outputs["weak"].logits), {"alike": alike, "moved": moved}

    objective = tl.cross_entropy() + tl.stateless(value, "views()", "weak", "strong")
    result = tl.fit(
        MODEL, START, objective, train={"train": (X / N, Y), "u": (X, None)}, views={"weak": "u", "strong": "u"},
        augment={"strong": lambda key, batch: batch._replace(x=batch.x + 3)}, optimizer=optax.sgd(0.1), steps=2,
        batch_size=8, log_every=1, progress=False,
    )  # fmt: skip
    assert [(row["alike"], row["moved"]) for row in result.history] == [(1.0, 3.0)] * 2
    half = np.arange(1, N, 2)
    many = tl.fit_many(
        MODEL, jax.tree.map(lambda leaf: leaf[None], START), counting("train"), train=(X, Y), subsets=[half], seeds=[0],
        optimizer=optax.sgd(0.1), steps=5, batch_size=8, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(many.terms[0].state[0, half], np.full(N // 2, 2.0))
    np.testing.assert_array_equal(many.terms[0].state[0, ::2], np.zeros(N // 2))


def test_batches_that_nobody_drew_have_no_index():
    step = make_step(MODEL, tl.cross_entropy(), tl.plan().resolve(START), optax.sgd(0.1))
    assert Batch(X).index is None
    batches = {"train": Batch(X, Y)}
    assert np.isfinite(float(step.update(step.init(START, batches, seed=0), batches)[1]["loss"]))


def inner_step(rate=0.5):
    """The loss on `b` after a step of gradient descent on `a`: MLDG's second part."""

    def value(scene):
        def loss(learnt, stream):
            batch = scene.batches[stream]
            logits = scene.forward(learnt, batch.x).logits
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.y))

        slope = jax.grad(loss)(scene.trainable, "a")
        moved = jax.tree.map(lambda leaf, g: leaf - rate * g, scene.trainable, slope)
        return loss(moved, "b"), {"slopes": jnp.float32(len(jax.tree.leaves(slope)))}

    return tl.stateless(value, "inner_step()", "a", "b")


@pytest.mark.parametrize(("rules", "leaves"), [(tl.plan(), 4), (tl.plan(tl.freeze("backbone/**")), 2)])
def test_a_step_inside_the_step_moves_what_learns_and_its_gradient_is_that_of_differences(rules, leaves):
    model = tl.models.mlp((6,), num_classes=CLASSES)
    params = model.init(jax.random.key(0), X)
    batches = {"a": Batch(X[:8] / N, Y[:8]), "b": Batch(X[8:16] / N, Y[8:16])}
    step = make_step(model, inner_step(), rules.resolve(params), optax.sgd(1.0))
    first = step.init(params, batches, seed=0)
    after, metrics = step.update(first, batches)
    assert int(metrics["slopes"]) == leaves
    slope = first.trainable["model"]["head"]["kernel"] - after.trainable["model"]["head"]["kernel"]

    def at(change):
        tree = jax.tree.map(lambda leaf: leaf, first.trainable)
        tree["model"]["head"]["kernel"] = tree["model"]["head"]["kernel"].at[2, 1].add(change)
        return float(step.update(first._replace(trainable=tree), batches)[1]["loss"])

    assert float(slope[2, 1]) == pytest.approx((at(1e-2) - at(-1e-2)) / 2e-2, rel=2e-2, abs=1e-4)


def test_further_passes_drop_the_same_units_unless_given_another_key():
    def value(scene):
        x = scene.batches["train"].x
        same, again = scene.forward(scene.params, x).logits, scene.forward(scene.trainable, x).logits
        other = scene.forward(scene.params, x, jax.random.fold_in(scene.key, 1)).logits
        sure = scene.evaluate(scene.trainable, x).logits - MODEL.apply(scene.params, x).logits
        gaps = {"again": again - same, "other": other - same, "sure": sure}
        return jnp.sum(output_of(scene, "train", "t").logits), {k: jnp.max(jnp.abs(v)) for k, v in gaps.items()}

    step = make_step(MODEL, tl.stateless(value, "t"), tl.plan().resolve(START), optax.sgd(0.1))
    batches = {"train": Batch(X, Y)}
    metrics = step.update(step.init(START, batches, seed=0), batches)[1]
    assert float(metrics["again"]) == float(metrics["sure"]) == 0
    assert float(metrics["other"]) > 0


def test_a_result_has_what_each_term_owned():
    objective = tl.cross_entropy(stream="source") + 0.5 * (tl.dann() + tl.cdan(randomized=4))
    domains = {"source": (X / N, Y), "target": (X / N, None)}
    options = {"train": domains, "optimizer": optax.sgd(0.1), "steps": 3, "batch_size": 8, "progress": False}
    alone = [tl.fit(MODEL, START, objective, seed=seed, **options) for seed in (0, 1)]
    none, dann, cdan = alone[0].terms
    assert none == Owned()
    assert dann.params["backbone"]["dense_0"]["kernel"].shape == (6, 1024)
    assert [leaf.shape for leaf in cdan.state["maps"]] == [(6, 4), (CLASSES, 4)]
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), START)
    many = tl.fit_many(MODEL, stack, objective, seeds=[0, 1], **options)
    for i, one in enumerate(alone):
        for ours, own in zip(jax.tree.leaves(many.terms), jax.tree.leaves(one.terms), strict=True):
            np.testing.assert_allclose(ours[i], own, atol=1e-6)
