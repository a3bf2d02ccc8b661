"""The step against plain optax loops, recursions written out, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, TANH, WIDTH, batch, close, normed, same

from tljax.objectives import Owned, Term, cross_entropy, stateless
from tljax.plans import freeze, linear_probe, plan, rate, unfreeze
from tljax.training import StepError, make_step
from tljax.tree import from_named, leaf_names, named_leaves
from tljax.types import Batch, Output, is_state

X = batch()["train"].x


def start(model=TANH):
    return model.init(jax.random.key(1), X)


def steps(model, objective, p, optimizer, n, params=None, batches=None, seed=0, **options):
    """The state after `n` steps, and the metrics of the last."""
    params = start(model) if params is None else params
    batches = batch() if batches is None else batches
    step = make_step(model, objective, p.resolve(params), optimizer, **options)
    state = step.init(params, batches, seed=seed)
    update, metrics = jax.jit(step.update), None
    for _ in range(n):
        state, metrics = update(state, batches)
    return state, metrics


def plain_loss(params, x, y):
    logits = TANH.apply(params, x).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def plain_loop(params, optimizer, n, loss=plain_loss):
    """The same training, in the words of optax's documentation."""
    x, y, *_ = batch()["train"]

    @jax.jit
    def one(params, opt):
        grads = jax.grad(loss)(params, x, y)
        updates, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    with jax.numpy_dtype_promotion("standard"):
        opt = optimizer.init(params)
        for _ in range(n):
            params, opt = one(params, opt)
    return params


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(1e-2, weight_decay=0.1),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.adam(optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 10)),
    ],
    ids=["adamw", "momentum", "schedule"],
)
def test_the_step_is_the_plain_optax_loop(optimizer):
    state, _ = steps(TANH, cross_entropy(), plan(), optimizer, 8)
    close(state.params, plain_loop(start(), optimizer, 8), rtol=1e-6, atol=1e-7)
    assert int(state.step) == 8


@pytest.mark.slow
def test_rates_are_those_of_separate_optimisers_and_clipping_is_of_the_whole():
    p = plan(rate("head/**", 10.0), rate("head/b", 0.5), freeze("backbone/b"))
    state, metrics = steps(TANH, cross_entropy(), p, optax.sgd(0.1), 1, clip_norm=0.05)
    x, y, *_ = batch()["train"]
    params = start()
    grads = jax.grad(plain_loss)(params, x, y)
    learnt = {name: np.asarray(g) for name, g in named_leaves(grads).items() if name != "backbone/b"}
    norm = np.sqrt(sum(np.sum(g.astype(float) ** 2) for g in learnt.values()))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-6)
    assert norm > 0.05  # or the test shows nothing
    factors = {"backbone/w": 1.0, "head/w": 10.0, "head/b": 0.5}
    expected = {name: leaf - 0.1 * factors[name] * 0.05 / norm * learnt[name] if name in learnt else leaf
                for name, leaf in named_leaves(params).items()}  # fmt: skip
    close(state.params, from_named(expected), rtol=1e-5)


def test_rates_under_adamw_are_learning_rates():
    state, _ = steps(TANH, cross_entropy(), plan(rate("**", 3.0)), optax.adamw(1e-2, weight_decay=0.1), 5)
    close(state.params, plain_loop(start(), optax.adamw(3e-2, weight_decay=0.1), 5))


def test_a_run_has_a_rate_of_its_own():
    params, batches = start(), batch()
    step = make_step(TANH, cross_entropy(), plan().resolve(params), optax.adam(1e-2))
    state, _ = jax.jit(step.update)(step.init(params, batches, seed=0, rate=0.5), batches)
    close(state.params, plain_loop(params, optax.adam(0.5e-2), 1))


@pytest.mark.parametrize("pieces", [3])
def test_microbatches_add_up_to_the_batch(pieces):
    whole, a = steps(TANH, cross_entropy(), plan(), optax.sgd(0.5), 3)
    cut, b = steps(TANH, cross_entropy(), plan(), optax.sgd(0.5), 3, accumulate=pieces)
    close(cut.params, whole.params, rtol=1e-5, atol=1e-6)
    close(b, a, rtol=1e-4)


def test_the_moving_average_is_its_recursion():
    params, batches = start(), batch()
    step = make_step(TANH, cross_entropy(), plan(freeze("head/b")).resolve(params), optax.sgd(0.5), ema=0.6)
    state, update = step.init(params, batches, seed=0), jax.jit(step.update)
    expected = {name: np.asarray(leaf, float) for name, leaf in named_leaves(params).items()}
    for t in range(12):
        state, _ = update(state, batches)
        decay = min(0.6, (1 + t) / (10 + t))
        for name, leaf in named_leaves(state.params).items():
            expected[name] = decay * expected[name] + (1 - decay) * np.asarray(leaf, float)
    close(state.evaluated, from_named(expected), rtol=1e-5)
    assert not np.allclose(state.evaluated["head"]["w"], state.params["head"]["w"])


def test_the_average_of_half_precision_parameters_moves():
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), start())
    loss = stateless(lambda scene: (jnp.sum(scene.params["head"]["b"].astype(jnp.float32)), {}), "fall")
    params["head"]["b"] = jnp.full(CLASSES, 100, jnp.bfloat16)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), batch()["train"].x)
    batches = {"train": Batch(half, batch()["train"].y)}
    step = make_step(TANH, loss, plan().resolve(params), optax.sgd(1.0), ema=0.999)
    state, update = step.init(params, batches, seed=0), jax.jit(step.update)
    state = state._replace(step=jnp.int32(100_000))  # past the warm-up
    for _ in range(20):
        state, _ = update(state, batches)
    # b falls by 1 a step; sum over k=1..20 of 0.001 * k * (1 - ...) is near 0.21, which bfloat16 near 100 cannot hold.
    moved = 100 - np.asarray(state.average[0]["head"]["b"])
    np.testing.assert_allclose(moved, 0.001 * sum(range(1, 21)), rtol=0.02)
    assert state.evaluated["head"]["b"].dtype == jnp.bfloat16


OPTIMISERS = {
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=2), "lion": optax.lion(1e-3), "lamb": optax.lamb(1e-2),
    "lars": optax.lars(0.1), "rmsprop": optax.rmsprop(1e-2), "adagrad": optax.adagrad(0.1), "sm3": optax.sm3(0.1),
    "novograd": optax.novograd(1e-2), "yogi": optax.yogi(1e-2), "lbfgs": optax.lbfgs(),
    "polyak": optax.polyak_sgd(max_learning_rate=0.1), "prodigy": optax.contrib.prodigy(),
    "muon": optax.contrib.muon(1e-2), "schedule_free": optax.contrib.schedule_free_adamw(1e-2),
    "plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2),
    "noisy": optax.noisy_sgd(0.1, key=0), "decayed": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    "if_finite": optax.apply_if_finite(optax.adam(1e-2), 3),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n != "lbfgs" else ()) for n in OPTIMISERS])
def test_any_optimiser_of_optax_lowers_the_loss_of_what_is_trainable(name):
    params = start()
    state, metrics = steps(TANH, cross_entropy(), plan(freeze("backbone/b")), OPTIMISERS[name], 15)
    _, first = steps(TANH, cross_entropy(), plan(), optax.sgd(0.1), 1)
    assert metrics["loss"] < first["loss"]
    assert same(state.params["backbone"]["b"], params["backbone"]["b"])


# --- frozen means frozen --------------------------------------------------------------------------------------------


def test_frozen_leaves_and_statistics_stay_bit_for_bit_under_weight_decay():
    model = normed()
    params = start(model)
    state, _ = steps(model, cross_entropy(), plan(freeze("backbone/**")), optax.adamw(0.1, weight_decay=0.5), 5)
    before, after = named_leaves(params), named_leaves(state.params)
    for name in before:
        assert same(before[name], after[name]) == name.startswith("backbone/"), name


@pytest.mark.slow
def test_frozen_statistics_are_those_that_normalise():
    model = normed()
    params = jax.tree.map(lambda a: a + 0.3, start(model))
    p = linear_probe().resolve(params)
    seen = []

    def loss(scene):
        seen.append(scene.outputs["train"].features)
        return jnp.mean(scene.outputs["train"].features), {"feature": jnp.mean(scene.outputs["train"].features)}

    step = make_step(model, stateless(loss, "look"), p, optax.sgd(0.1))
    _, metrics = jax.jit(step.update)(step.init(params, batch(), seed=0), batch())
    still = model.apply(params, X).features
    np.testing.assert_allclose(metrics["feature"], jnp.mean(still), rtol=1e-5)
    moving = model.apply(params, X, train=True, key=jax.random.key(0)).features
    assert not np.allclose(jnp.mean(moving), jnp.mean(still), rtol=1e-3)


@pytest.mark.slow
def test_statistics_that_are_not_frozen_follow_the_batch_with_flax_momentum():
    model = normed()
    params = start(model)
    state, _ = steps(model, cross_entropy(), plan(freeze("backbone/**/batch_stats/**"),
                     unfreeze("backbone/norm_0/batch_stats/**")), optax.sgd(0.1), 1)  # fmt: skip
    pre = np.asarray(X @ params["backbone"]["dense_0"]["kernel"] + params["backbone"]["dense_0"]["bias"][None], float)
    found = state.params["backbone"]
    np.testing.assert_allclose(found["norm_0"]["batch_stats"]["mean"], 0.5 * pre.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["norm_0"]["batch_stats"]["var"], 0.5 + 0.5 * pre.var(0), rtol=1e-4)
    assert same(found["norm_1"]["batch_stats"], params["backbone"]["norm_1"]["batch_stats"])


def test_the_optimiser_has_state_for_trainable_leaves_only():
    model = normed()
    params = start(model)
    params["backbone"]["table"] = jnp.arange(7)
    step = make_step(from_named_model(model), cross_entropy(), linear_probe().resolve(params), optax.adam(0.1))
    state = step.init(params, batch(), seed=0)
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(state.opt))
    assert sizes == sorted([1] + 2 * [WIDTH * CLASSES] + 2 * [CLASSES])  # the count, and two moments of the head
    assert leaf_names(state.trainable["model"]) == ["head/bias", "head/kernel"]
    assert not [name for name in leaf_names(state.trainable) if is_state(name)]


def from_named_model(model):
    """`model`, with room for leaves that it does not know."""

    def apply(params, x, **rest):
        known = {k: v for k, v in params["backbone"].items() if k != "table"}
        frozen = {name for name in rest.pop("frozen", ()) if "table" not in name}
        return model.apply(params | {"backbone": known}, x, frozen=frozen, **rest)

    return model._replace(apply=apply)


def deep(width=64, depth=6):
    """Enough layers for the backward pass of the backbone to be most of the work."""

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        for layer in params["backbone"]:
            x = jnp.tanh(x @ layer)
        return Output(x @ params["head"], x)

    key = jax.random.key(0)
    params = {
        "backbone": [jax.random.normal(k, (width, width)) / 8 for k in jax.random.split(key, depth)],
        "head": jax.random.normal(key, (width, CLASSES)),
    }
    return TANH._replace(apply=apply), params


@pytest.mark.one_in(2)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_head_only_step_costs_under_two_fifths(clip):
    model, params = deep()
    batches = {"train": Batch(jnp.ones((32, 64)), jnp.zeros(32, jnp.int32))}

    def flops(p):
        step = make_step(model, cross_entropy(), p.resolve(params), optax.adamw(1e-3), clip_norm=clip)
        state = jax.eval_shape(lambda: step.init(params, batches, seed=0))
        compiled = jax.jit(step.update).lower(state, batches).compile()
        assert "grad_norm" in step_metrics(step, state, batches)  # logged, and still cheap
        return compiled.cost_analysis()["flops"]

    assert flops(linear_probe("head")) < 0.4 * flops(plan())


def step_metrics(step, state, batches):
    return jax.eval_shape(step.update, state, batches)[1]


# --- objectives ------------------------------------------------------------------------------------------------------


def toy_term():
    """Owns a trained offset and a carried count: (mean logit - offset)^2 + 0 * count."""

    def init(key, scene):
        width = scene.outputs["train"].logits.shape[-1]
        return Owned({"offset": jax.random.normal(key, (width,))}, {"seen": jnp.int32(0)})

    def apply(owned, scene):
        value = jnp.sum(jnp.square(jnp.mean(scene.outputs["train"].logits, axis=0) - owned.params["offset"]))
        return value, {"seen": owned.state["seen"] + 1}, {"seen": owned.state["seen"]}

    return Term(apply, init, "toy()")


def test_terms_train_what_they_own_and_carry_their_state():
    params, batches = start(), batch()
    step = make_step(TANH, 0.5 * cross_entropy() + toy_term(), plan(rate("**", 2.0)).resolve(params), optax.sgd(0.1))
    state = step.init(params, batches, seed=3)
    offset = np.asarray(state.trainable["terms"][1]["offset"], float)
    mean = np.asarray(TANH.apply(params, X).logits, float).mean(0)
    state, metrics = jax.jit(step.update)(state, batches)
    found = state.trainable["terms"][1]["offset"]
    np.testing.assert_allclose(found, offset + 0.1 * 2 * (mean - offset), rtol=1e-5)  # terms learn at the rate 1
    state, metrics = jax.jit(step.update)(state, batches)
    assert int(metrics["seen"]) == 1
    assert int(state.terms[1]["seen"]) == 2
    again = step.init(params, batches, seed=3).trainable["terms"][1]["offset"]
    np.testing.assert_array_equal(again, offset.astype(np.float32))
    assert not np.allclose(step.init(params, batches, seed=4).trainable["terms"][1]["offset"], offset)


def test_terms_carry_their_state_through_microbatches():
    state, metrics = steps(TANH, toy_term(), plan(), optax.sgd(0.1), 2, accumulate=4)
    assert int(state.terms["seen"]) == 8
    assert float(metrics["seen"]) == 5.5  # the mean of 4, 5, 6, 7


@pytest.mark.slow
def test_streams_have_their_own_batches_and_pass_statistics_on():
    model = normed()
    params = start(model)
    batches = {"a": batch(seed=1)["train"], "b": batch(seed=2)["train"]}
    objective = cross_entropy(stream="a") + 0.5 * cross_entropy(stream="b")
    state, metrics = steps(model, objective, plan(), optax.sgd(0.1), 1, params=params, batches=batches)
    first = model.apply(params, batches["a"].x, train=True, key=jax.random.key(0))
    moved = jax.tree.map(lambda p, s: p if s is None else s, params, first.stats, is_leaf=lambda x: x is None)
    second = model.apply(moved, batches["b"].x, train=True, key=jax.random.key(0))
    close(state.stats, jax.tree.map(lambda s: s, second.stats), rtol=1e-5)

    def loss(logits, y):
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    expected = loss(first.logits, batches["a"].y) + 0.5 * loss(second.logits, batches["b"].y)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


@pytest.mark.slow
def test_random_numbers_are_a_function_of_seed_and_step():
    model = normed(dropout=0.5)
    runs = [steps(model, cross_entropy(), plan(), optax.sgd(0.1), 3, seed=s)[0] for s in (5, 5, 6)]
    assert same(runs[0], runs[1])
    assert not same(runs[0].params, runs[2].params)


@pytest.mark.slow
def test_every_microbatch_stream_and_extra_pass_draws_its_own_dropout():
    seen = []

    def apply(params, x, *, train=False, key=None, frozen=frozenset()):
        if train:
            jax.debug.callback(lambda k: seen.append(tuple(np.asarray(k).tolist())), jax.random.key_data(key))
        return TANH.apply(params, x)

    def again(scene):
        return jnp.sum(scene.forward(scene.params, X).logits), {}

    objective = cross_entropy(stream="a") + cross_entropy(stream="b") + stateless(again, "again", "a")
    batches = {"a": batch(seed=1)["train"], "b": batch(seed=2)["train"]}
    model = TANH._replace(apply=apply)
    steps(model, objective, plan(), optax.sgd(0.1), 2, batches=batches, accumulate=2)
    jax.effects_barrier()
    assert len(set(seen)) == 2 * 2 * 3


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a.astype(jnp.float64), start())
        x, y, *_ = batch()["train"]
        batches = {"train": Batch(x.astype(jnp.float64), y.astype(jnp.int64))}
        pull = stateless(lambda scene: (jnp.sum(jnp.square(scene.params["backbone"]["w"] - 0.1)), {}), "pull")
        objective = cross_entropy(label_smoothing=0.1) + 0.3 * pull
        resolved = plan(freeze("backbone/b")).resolve(params)
        step = make_step(TANH, objective, resolved, optax.sgd(1.0))
        update = jax.jit(step.update)
        state = step.init(params, batches, seed=0)
        after, _ = update(state, batches)

        def loss(name, i, h):
            leaves = dict(named_leaves(params))
            leaves[name] = leaves[name].at[i].add(h)
            moved = step.init(from_named(leaves), batches, seed=0)
            return float(update(moved, batches)[1]["loss"])

        for name, i in (("backbone/w", (1, 2)), ("backbone/w", (4, 0)), ("head/w", (3, 1)), ("head/b", (2,))):
            slope = (loss(name, i, 1e-5) - loss(name, i, -1e-5)) / 2e-5
            step_taken = named_leaves(params)[name][i] - named_leaves(after.params)[name][i]
            np.testing.assert_allclose(step_taken, slope, rtol=1e-6, atol=1e-9)


# --- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"accumulate": 0}, "accumulate must be a whole number"),
        ({"accumulate": 1.5}, "accumulate must be a whole number"),
        ({"ema": 1.0}, "ema is the decay"),
        ({"ema": -0.1}, "ema is the decay"),
    ],
)
def test_options_outside_their_range(options, message):
    with pytest.raises(StepError, match=message):
        make_step(TANH, cross_entropy(), plan().resolve(start()), optax.sgd(0.1), **options)


def test_a_batch_that_does_not_divide():
    with pytest.raises(StepError, match="24 examples cannot be cut into 5 equal"):
        steps(TANH, cross_entropy(), plan(), optax.sgd(0.1), 1, accumulate=5)
