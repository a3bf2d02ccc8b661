"""Soups: what joins, by how much, and on a model that was really trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.merging import (
    MergingError,
    average,
    evaluate_stacked,
    greedy_soup,
    interpolate,
    stack,
    unstack,
    wise_ft,
)
from tljax.models import mlp


def test_the_published_rule_from_its_definition() -> None:
    """Sorted by score, kept if the mean does not fall."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 3))
    models = [{"w": jnp.asarray(rng.normal(size=3), jnp.float32)} for _ in range(8)]

    def score(params: dict) -> np.ndarray:
        return -np.square(target - np.asarray(params["w"])).sum(1)

    order = sorted(range(8), key=lambda i: -score(models[i]).mean())
    kept = order[:1]
    for i in order[1:]:
        now, then = (score(average([models[j] for j in js])).mean() for js in ([*kept, i], kept))
        kept = [*kept, i] if now >= then else kept
    soup = greedy_soup(models, score, factor=0.0)
    assert soup.kept == tuple(kept)
    assert len(kept) > 1
    jax.tree.map(np.testing.assert_array_equal, soup.params, average([models[j] for j in kept]))


def rigged(gains: np.ndarray):
    """A score that is 0 for the first model, and `gains` for any average with the second in it."""
    return lambda params: gains if float(params["w"]) > 0.4 and float(params["w"]) < 0.9 else np.zeros_like(gains)


def test_a_gain_within_its_standard_error_is_left_out() -> None:
    models = [{"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}]
    sure, unsure = np.full(100, 0.01), np.where(np.arange(100) < 50, 1.0, -0.98)
    sure[0] = 0.02
    for gains, factor, joins in ((sure, 1.0, True), (unsure, 1.0, False), (unsure, 0.0, True), (sure * 0, 0.0, True)):
        soup = greedy_soup(models, rigged(gains), factor=factor)
        assert (soup.kept == (0, 1)) is joins
        trial = soup.trials[1]
        assert trial.gain == pytest.approx(gains.mean())
        assert trial.error == pytest.approx(gains.std(ddof=1) / 10)
    assert "left out" in str(greedy_soup(models, rigged(unsure)))
    assert greedy_soup(models, rigged(sure * 0)).kept == (0,)


def test_scores_that_do_not_fit() -> None:
    models = [{"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}]
    with pytest.raises(MergingError, match=r"gave 1 number\. Return the scores"):
        greedy_soup(models, lambda params: 0.5)
    with pytest.raises(MergingError, match="expected a finite number"):
        greedy_soup(models, lambda params: np.array([np.nan, 1.0]))
    with pytest.raises(MergingError, match="for 2 models"):
        greedy_soup(models, lambda params: np.ones(3), scores=np.ones((3, 3)))
    assert greedy_soup(models, lambda params: float(params["w"]), factor=0.0).kept == (1,)


def test_evaluate_stacked_compiles_once_and_maps_in_order() -> None:
    traces = []

    def score(params: dict) -> jax.Array:
        traces.append(1)
        return params["w"].sum()

    models = [{"w": jnp.full(3, float(i))} for i in range(4)]
    np.testing.assert_array_equal(evaluate_stacked(score, stack(models)), [0, 3, 6, 9])
    assert len(traces) == 1


@pytest.fixture(scope="module")
def trained():
    """A start, six fine-tunes of it at rates good and bad, and the score on held-out examples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, 3)) + rng.normal(size=(400, 3))).argmax(1)
    x, y = jnp.asarray(x), jnp.asarray(y)
    model = mlp(num_classes=3, hidden=(16,))

    @jax.jit
    def train(params, rate, key, rows):
        optimizer = optax.sgd(rate, momentum=0.9)

        def loss(params, i):
            logits = model.apply(params, x[i]).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[i]).mean()

        def step(carry, k):
            params, state = carry
            gradients = jax.grad(loss)(params, rows[jax.random.randint(k, (16,), 0, len(rows))])
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 60))[0][0]

    start = train(model.init(jax.random.key(0), x[:1]), jnp.float32(0.1), jax.random.key(1), jnp.arange(100))
    rates = (0.01, 0.01, 0.03, 0.03, 0.1, 10.0)
    keys = jax.random.split(jax.random.key(2), len(rates))
    tuned = [train(start, jnp.float32(rate), key, jnp.arange(60, 160)) for rate, key in zip(rates, keys)]
    held_x, held_y = x[160:], y[160:]

    def correct(params):
        return (model.apply(params, held_x).logits.argmax(-1) == held_y).astype(jnp.float32)

    return start, tuned, correct


@pytest.mark.slow
def test_greedy_soup_of_trained_models(trained) -> None:
    _, tuned, correct = trained
    scores = evaluate_stacked(correct, stack(tuned))
    single = np.asarray(scores).mean(1)
    soup = greedy_soup(tuned, jax.jit(correct), scores=scores)
    held_out = float(correct(soup.params).mean())
    assert held_out >= single.max()
    assert 5 not in soup.kept, "the run at a rate of 10 spoils any average"
    assert held_out >= float(correct(average(tuned)).mean())
    published = greedy_soup(tuned, jax.jit(correct), scores=scores, factor=0.0)
    assert set(soup.kept) <= set(published.kept) or len(soup.kept) < len(published.kept)


def test_wise_ft_path_of_trained_models(trained) -> None:
    start, tuned, correct = trained
    alphas = np.linspace(0, 1, 5)
    stacked = evaluate_stacked(lambda params: correct(params).mean(), wise_ft(start, tuned[2], alphas))
    lazily = evaluate_stacked(
        lambda a: correct(interpolate(start, tuned[2], a)).mean(), jnp.asarray(alphas, jnp.float32)
    )
    one_by_one = [float(correct(p).mean()) for p in unstack(wise_ft(start, tuned[2], alphas))]
    np.testing.assert_allclose(stacked, one_by_one, atol=1e-6)
    np.testing.assert_allclose(lazily, one_by_one, atol=1e-6)
    assert max(one_by_one) >= max(one_by_one[0], one_by_one[-1])
