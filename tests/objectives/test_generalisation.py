"""Terms over several labelled domains: V-REx, IRM, and a method with an inner step that a user writes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adaptation_inputs import golden, gs, gs2, gt, y
from loss_checks import agrees, slope_agrees, value_of

from tljax import fit, irm, stateless, vrex
from tljax.models import mlp
from tljax.objectives import DomainError, StreamError, irm_penalty, risk_extrapolation
from tljax.objectives.classification import cross_entropy_losses
from tljax.objectives.stream import labelled

DOMAINS = {"a": (gs, gs, y), "b": (gt, gt, y[::-1]), "c": (gs2, gs2, y)}


def risk(g, labels):
    return (np.log(np.exp(g).sum(1)) - g[np.arange(len(g)), labels]).mean()


def slope(g, labels):
    """d/ds of the risk of s g at s = 1, in closed form."""
    p = np.exp(g) / np.exp(g).sum(1, keepdims=True)
    return ((p - np.eye(4)[labels]) * g).sum(1).mean()


def test_irm_penalty_in_both_forms():
    expected = [golden("irm_penalty(gs,y)"), slope(gs, y) ** 2]
    agrees(lambda g, labels: [irm_penalty(g, labels, form=form) for form in ("product", "square")], expected, gs, y)
    assert slope(gs[::2], y[::2]) * slope(gs[1::2], y[1::2]) == pytest.approx(expected[0], rel=1e-9)


def test_gradients():
    def losses(g):
        product, square = (irm_penalty(g, jnp.asarray(y), form=form) for form in ("product", "square"))
        return product + 2 * square + risk_extrapolation(jnp.sum(g, axis=0), penalty=2.0)

    slope_agrees(losses, gs)


def test_the_product_has_no_bias():
    """Over random batches its mean is the square of the mean slope; that of the square is above it."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(4000, 4, 4))
    labels = rng.integers(4, size=(4000, 4))
    of = lambda form: np.asarray(jax.jit(jax.vmap(partial(irm_penalty, form=form)))(g, labels))  # noqa: E731
    truth = slope(g.reshape(-1, 4), labels.ravel()) ** 2
    product, square = of("product"), of("square")
    assert abs(product.mean() - truth) < 3 * product.std() / np.sqrt(4000)
    assert square.mean() - truth > 3 * square.std() / np.sqrt(4000)


@pytest.mark.parametrize(("step", "penalty"), [(499, 1.0), (500, 10.0)])
def test_terms_by_hand_before_and_after_the_change(step, penalty):
    risks = np.array([risk(g, labels) for g, _, labels in DOMAINS.values()])
    value, metrics = value_of(vrex(tuple("abc"), penalty=10), DOMAINS, step=step)
    np.testing.assert_allclose(value, risks.mean() + penalty * risks.var(), rtol=1e-5)
    np.testing.assert_allclose(metrics["b/cross_entropy"], risks[1], rtol=1e-5)
    gaps = [slope(g[::2], n[::2]) * slope(g[1::2], n[1::2]) for g, _, n in DOMAINS.values()]
    value, metrics = value_of(irm(tuple("abc"), penalty=10), DOMAINS, step=step)
    np.testing.assert_allclose(value, risks.mean() + penalty * np.mean(gaps), rtol=1e-5)
    np.testing.assert_allclose(metrics["irm/penalty"], np.mean(gaps), rtol=1e-5)


@pytest.mark.parametrize("form", ["product", "square"])
def test_padding_does_not_count_in_the_penalty(form):
    for rows in ([0, 1, 2, 3], [0, 2, 3, 5]):  # wherever it stands
        weight = jnp.zeros(6).at[jnp.array(rows)].set(1.0)
        padded = jnp.where(weight[:, None] > 0, gs[:6], jnp.nan)
        found, slopes = jax.value_and_grad(irm_penalty)(padded, y[:6], weight, form=form)
        np.testing.assert_allclose(found, irm_penalty(gs[rows], y[rows], form=form), rtol=1e-5)
        assert np.isfinite(slopes).all()


@pytest.mark.parametrize("form", ["product", "square"])
def test_a_class_of_logit_minus_infinity_is_one_that_is_not_there(form):
    labels = y + (y >= 2)
    of = jax.value_and_grad(partial(irm_penalty, form=form))
    found, slopes = of(np.insert(gs, 2, -np.inf, axis=1), labels)
    value, expected = of(jnp.asarray(gs), y)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    np.testing.assert_allclose(slopes, np.insert(expected, 2, 0, axis=1), atol=1e-6)


def test_what_they_say_of_themselves():
    assert str(vrex(["a", "b"])) == "vrex(('a', 'b'))"
    assert str(irm(("a", "b"), form="square", anneal=0)) == "irm(('a', 'b'), anneal=0, form='square')"
    assert vrex(tuple("ab")).joint == vrex(tuple("ab")).streams == ("a", "b") == irm(tuple("ab")).joint


def test_mistakes():
    for method in (vrex, irm):
        for streams in ("art", ("art",), (), ("art", "art")):
            with pytest.raises(DomainError, match="two labelled streams or more"):
                method(streams)
    with pytest.raises(StreamError, match="'c'"):
        value_of(vrex(("a", "c")), {"a": DOMAINS["a"]})
    with pytest.raises(StreamError, match="needs labels"):
        value_of(irm(("a", "b")), {"a": DOMAINS["a"], "b": (gs, gs)})
    with pytest.raises(DomainError, match="form='sum'"):
        irm_penalty(gs, y, form="sum")
    with pytest.raises(DomainError, match="form='sum'"):
        irm(("a", "b"), form="sum")
    with pytest.raises(DomainError, match="batch of one"):
        irm_penalty(gs[:1], y[:1])
    with pytest.raises(DomainError, match=r"\[2, 2\]"):
        risk_extrapolation(jnp.zeros((2, 2)))


def mldg(support, query, *, inner_rate=0.1, weight=1.0):
    """A user's term with a step inside: after one step on `support`, `query` goes well too (arXiv:1710.03463)."""
    text = f"mldg({support!r}, {query!r})"

    def value(scene):
        logits, batch = labelled(scene, support, text)
        other = labelled(scene, query, text)[1]

        def risk(params, batch):
            return jnp.mean(cross_entropy_losses(scene.forward(params, batch.x).logits, batch.y))

        slopes = jax.grad(risk)(scene.params, batch)
        moved = jax.tree.map(lambda w, slope: w - inner_rate * slope, scene.params, slopes)
        loss = jnp.mean(cross_entropy_losses(logits, batch.y)) + weight * risk(moved, other)
        return loss, {"mldg": loss}

    return stateless(value, text, support, query)


def domains(n=64, seed=0):
    """Two domains with one rule, x0 > 0, and a shortcut that points one way in one and the other way in the other."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, sign in (("a", 1), ("b", -1)):
        labels = rng.integers(2, size=n).astype("int32")
        towards = 2 * labels - 1
        x = np.stack([towards + rng.normal(size=n), sign * 2 * towards + 0.1 * rng.normal(size=n)], axis=1)
        found[name] = (x.astype("float32"), labels)
    return found


@pytest.mark.slow
def test_a_step_inside_a_step_is_a_users_term():
    """It trains, and its gradient is that of the whole: differences through the inner step say the same."""
    model, data = mlp((4,), num_classes=2, norm="batch"), domains()
    start = model.init(jax.random.key(0), data["a"][0])
    result = fit(model, start, mldg("a", "b"), train=data, optimizer=optax.adam(0.02), steps=40, progress=False)
    losses = [row["mldg"] for row in result.history if "mldg" in row]
    assert losses[-1] < 0.8 * losses[0]


def test_the_gradient_through_the_inner_step():
    from tljax.objectives import Scene
    from tljax.types import Batch, Output

    forward = lambda params, x: Output(x @ params["w"], x)  # noqa: E731
    with jax.enable_x64(True):
        batches = {name: Batch(jnp.asarray(x, "float64"), jnp.asarray(n)) for name, (x, n) in domains(8).items()}

        def whole(w):
            outputs = {name: forward({"w": w}, batch.x) for name, batch in batches.items()}
            scene = Scene(outputs, batches, {"w": w}, forward, jnp.int32(0), jax.random.key(0))
            return mldg("a", "b", inner_rate=0.5).apply(None, scene)[0]

        slope_agrees(whole, np.random.default_rng(0).normal(size=(2, 2)))


@pytest.mark.slow
def test_domains_train_together():
    """Both in one sum, each term with the cross-entropy that it brings."""
    model, data = mlp((4,), num_classes=2), domains()
    start = model.init(jax.random.key(0), data["a"][0])
    both = vrex(("a", "b"), anneal=5) + 0.5 * irm(("a", "b"), form="square")
    result = fit(model, start, both, train=data, optimizer=optax.adam(0.02), steps=20, progress=False)
    assert {"vrex", "irm", "a/cross_entropy", "a/cross_entropy_2"} <= set(result.history[-1])
    assert result.history[-1]["loss"] < result.history[0]["loss"]
