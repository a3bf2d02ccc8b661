"""Plans with stages, decay and automatic rates in the step and in `fit`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import HITS, TANH, batch, close, examples, normed, same

from tljax.objectives import cross_entropy
from tljax.plans import auto_rgn, decay, gradual_unfreeze, layerwise_decay, plan, rate
from tljax.training import fit, make_step
from tljax.tree import count, map_named, named_leaves

GROUPS = ["backbone/**", "head/**"]
STAGED = plan(gradual_unfreeze(GROUPS, every=3))
ENTROPY = cross_entropy()
X, Y = examples(40)


def start(model=TANH):
    return model.init(jax.random.key(1), X)


def run(p, optimizer, n, model=TANH, **options):
    """Every state of `n` steps from the start, and the metrics of each."""
    params, batches = start(model), batch()
    step = make_step(model, ENTROPY, p.resolve(params), optimizer, **options)
    states, rows, traces = [step.init(params, batches, seed=0)], [], []

    @jax.jit
    def update(state, batches):
        traces.append(1)
        return step.update(state, batches)

    for _ in range(n):
        state, metrics = update(states[-1], batches)
        states.append(state)
        rows.append(metrics)
    assert len(traces) == 1
    return states, rows


@pytest.mark.slow
def test_closed_groups_stay_bit_for_bit_and_then_learn():
    states, rows = run(STAGED, optax.adamw(0.05, weight_decay=0.1), 5, clip_norm=0.1)
    first = start()
    for step, state in enumerate(states):
        assert same(state.params["backbone"], first["backbone"]) == (step <= 3), step
        assert same(state.params["head"], first["head"]) == (step == 0)
    grads = jax.grad(lambda p: ENTROPY_OF(p))(states[2].params)
    np.testing.assert_allclose(rows[2]["grad_norm"], optax.tree.norm(grads["head"]), rtol=1e-5)
    whole = jax.grad(lambda p: ENTROPY_OF(p))(states[3].params)
    np.testing.assert_allclose(rows[3]["grad_norm"], optax.tree.norm(whole), rtol=1e-5)


def ENTROPY_OF(params):  # noqa: N802
    x, y, *_ = batch()["train"]
    return optax.softmax_cross_entropy_with_integer_labels(TANH.apply(params, x).logits, y).mean()


def test_the_first_step_of_an_opened_group_is_an_ordinary_one():
    """With zero moments and the count of 1000 steps it would be 0.1 / sqrt(0.001 / (1 - 0.999**1001)) = 2.5 rates for
    every entry. With moments of the gradients, they move as any step of Adam does."""
    p = plan(gradual_unfreeze(GROUPS, every=1000))
    step = make_step(TANH, ENTROPY, p.resolve(start()), optax.adam(0.001))

    @jax.jit
    def upto(state, n):
        return jax.lax.fori_loop(0, n, lambda _, s: step.update(s, batch())[0], state)

    before = upto(step.init(start(), batch(), seed=0), 1000)
    after = upto(before, 1)
    moved = np.abs(np.asarray(after.params["backbone"]["w"] - before.params["backbone"]["w"])) / 0.001
    assert 0.1 < moved.max() < 2.0
    assert np.median(moved) < 1.2


def test_moments_of_closed_groups_are_those_of_their_gradients():
    states, _ = run(STAGED, optax.adam(0.05), 2)
    mu, params = jnp.zeros_like(start()["backbone"]["w"]), [s.params for s in states]
    for p in params[:2]:
        mu = 0.9 * mu + 0.1 * jax.grad(ENTROPY_OF)(p)["backbone"]["w"]
    np.testing.assert_allclose(states[2].opt[0].mu["model"]["backbone"]["w"], mu, rtol=1e-4, atol=1e-7)


def test_the_average_of_closed_groups_stays_too():
    states, _ = run(STAGED, optax.sgd(0.5), 3, ema=0.9)
    assert same(states[3].evaluated["backbone"], start()["backbone"])


def test_normalisation_layers_that_open_later_keep_and_use_their_statistics():
    model = normed()
    p = plan(gradual_unfreeze(["backbone/{dense,norm}_0/**", "backbone/{dense,norm}_1/**", "head/**"], every=2))
    states, rows = run(p, optax.sgd(0.3), 5, model)
    first = start(model)
    for name, leaf in named_leaves(first).items():
        learnt = not same(leaf, named_leaves(states[-1].params)[name])
        assert learnt == ("batch_stats" not in name), name
    still = model.apply(first, batch()["train"].x).logits  # running statistics
    loss = optax.softmax_cross_entropy_with_integer_labels(still, batch()["train"].y).mean()
    np.testing.assert_allclose(rows[0]["loss"], loss, rtol=1e-5)


@pytest.mark.slow
def test_one_program_for_all_stages_and_resume_in_the_middle_of_one(tmp_path):
    traced = []

    def apply(params, x, *, train=False, **rest):
        traced.append(train)
        return TANH.apply(params, x, **rest)

    model = TANH._replace(apply=apply)
    p = plan(gradual_unfreeze(["backbone/w", "backbone/b", "head/**"], every=4), layerwise_decay(0.5, GROUPS))
    options = {"optimizer": optax.adamw(optax.cosine_decay_schedule(0.1, 15)), "steps": 15, "batch_size": 8,
               "eval_every": 3, "log_every": 1, "save_every": 1, "progress": False, "metric": HITS, "clip_norm": 0.3,
               "ema": 0.9, "keep": 20}  # fmt: skip
    data = ((X[:30], Y[:30]), (X[30:], Y[30:]))
    whole = fit(model, start(), ENTROPY, p, *data, **options, run_dir=tmp_path / "whole")
    once = traced.count(True)
    fit(model, start(), ENTROPY, p, *data, **options)
    assert traced.count(True) == once  # the program is found again, and no stage made it anew
    for stop in (2, 6):

        def end(row, stop=stop):
            if row["step"] >= stop:
                raise Stop

        folder = tmp_path / str(stop)
        with pytest.raises(Stop):
            fit(model, start(), ENTROPY, p, *data, **options, run_dir=folder, on_log=[end])
        again = fit(model, start(), ENTROPY, p, *data, **options, run_dir=folder)
        assert same((again.last, again.params), (whole.last, whole.params))
        assert again.history == whole.history


class Stop(Exception):  # noqa: N818
    pass


# --- decay and automatic rates ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_decay_in_the_step_is_adamw_with_a_mask():
    made = functools.partial(optax.adamw, 0.05)
    states, _ = run(plan(decay("**", 0.3)), made, 4)
    mask = map_named(lambda name, _: name.endswith("/w"), start())
    state, transform, params = None, optax.adamw(0.05, weight_decay=0.3, mask=mask), start()
    with jax.numpy_dtype_promotion("standard"):
        state = transform.init(params)
        for _ in range(4):
            updates, state = transform.update(jax.grad(ENTROPY_OF)(params), state, params)
            params = optax.apply_updates(params, updates)
    close(states[-1].params, params, rtol=1e-5)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(states[-1].opt) if leaf.ndim)
    assert sizes == 2 * count(start())  # two moments for each parameter, in whichever group


def test_automatic_rates_scale_updates_and_leave_the_moments_alone():
    states, _ = run(plan(auto_rgn(batches=1)), optax.adam(0.05), 1, clip_norm=0.01)
    plain, _ = run(plan(), optax.adam(0.05), 1, clip_norm=0.01)
    assert same(states[1].opt[0], plain[1].opt) or same(
        jax.tree.leaves(states[1].opt)[:9], jax.tree.leaves(plain[1].opt)
    )
    params = start()
    grads = named_leaves(jax.grad(ENTROPY_OF)(params))
    leaves = named_leaves(params)
    sizes = {n: max(np.linalg.norm(leaves[n]), 1e-3 * np.sqrt(leaves[n].size)) for n in leaves}
    ratios = {n: np.linalg.norm(grads[n]) / sizes[n] for n in leaves}
    for name, before in leaves.items():
        moved = named_leaves(states[1].params)[name] - before
        expected = (named_leaves(plain[1].params)[name] - before) * ratios[name] / max(ratios.values())
        np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-7)


def test_all_of_it_together_trains():
    p = plan(
        layerwise_decay(0.5, GROUPS), rate("head/w", optax.cosine_decay_schedule(1.0, 60)), decay("**", 0.01),
        auto_rgn("backbone/**"), gradual_unfreeze(GROUPS, every=10),
    )  # fmt: skip
    _, rows = run(p, functools.partial(optax.adamw, 0.05), 60, clip_norm=1.0, ema=0.9)
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    text = p.resolve(start()).table(start())
    for part in ("cosine_decay_schedule", "relative gradient norm, from step 10", "0.01", "0.5"):
        assert part in text
