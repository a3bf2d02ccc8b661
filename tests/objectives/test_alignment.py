"""Losses that align the statistics of two domains: values of other programs, slopes, and what leaves them alone."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptation_inputs import fs, ft, golden, gs, gt
from jax.extend.core import jaxprs_in_params
from loss_checks import agrees, slope_agrees, value_of

from tljax.objectives import (
    DomainError,
    Gaussians,
    LabelError,
    StreamError,
    adaptive_feature_norm,
    afn,
    coral,
    correlation_alignment,
    dan,
    hard_feature_norm,
    jan,
    joint_mmd,
    mk_mmd,
    sliced_wasserstein,
    swd,
)
from tljax.objectives.afn import feature_norms
from tljax.objectives.kernels import linear_mmd, quadratic_mmd, squared_distances

B = len(fs)
CONSTANT = 2 / (B - 1)  # which TLlib adds to its estimates
EVEN = {"source": (gs, fs), "target": (gt, ft)}
rng = np.random.default_rng(0)


def softmax(g):
    e = np.exp(g - g.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def distances(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def by_hand(pairs, kernels):
    """MMD^2 of all pairs by the definition, with loops in place of products of matrices."""
    n, m = len(pairs[0][0]), len(pairs[0][1])
    k = np.ones((n + m, n + m))
    for (s, t), (scales, variance) in zip(pairs, kernels):
        d = distances(np.concatenate([s, t]), np.concatenate([s, t]))
        v = d.mean() if variance is None else variance
        k *= sum(np.exp(-d / (2 * scale * v)) for scale in scales)
    ss, tt, st = k[:n, :n], k[n:, n:], k[:n, n:]
    return (ss.sum() - np.trace(ss)) / n / (n - 1) + (tt.sum() - np.trace(tt)) / m / (m - 1) - 2 * st.mean()


def test_mk_mmd_is_that_of_tllib_but_for_the_constant():
    expected = [golden(f"mkmmd_{name}") for name in ("nonlinear", "linear", "single_alpha1_nonlinear")]

    def losses(s, t):
        one = mk_mmd(s, t, kernel=Gaussians((1.0,)))
        return [value + CONSTANT for value in (mk_mmd(s, t), mk_mmd(s, t, linear=True), one)]

    agrees(losses, expected, fs, ft)


def test_joint_mmd_is_that_of_tllib_but_for_the_constant():
    def losses(s, t, p, q):
        layers = [s, jax.nn.softmax(p)], [t, jax.nn.softmax(q)]
        return [joint_mmd(*layers, linear=linear) + CONSTANT for linear in (False, True)]

    agrees(losses, [golden("jmmd_nonlinear"), golden("jmmd_linear")], fs, ft, gs, gt)


def test_coral_in_both_forms():
    gap = np.cov(fs.T) - np.cov(ft.T)
    expected = [golden("coral_tllib"), (gap**2).sum() / (4 * fs.shape[1] ** 2)]
    agrees(lambda s, t: [correlation_alignment(s, t, form="moments"), correlation_alignment(s, t)], expected, fs, ft)


def test_adaptive_feature_norm():
    expected = [golden("afn_delta1_value(always delta^2)"), golden("afn_delta1_grad[0,0]")]
    agrees(lambda f: [adaptive_feature_norm(f), jax.grad(adaptive_feature_norm)(f)[0, 0]], expected, fs)
    slope = jax.jit(jax.grad(partial(adaptive_feature_norm, delta=0.3)))(jnp.asarray(fs, "float32"))
    np.testing.assert_allclose(slope, -0.6 * fs / np.linalg.norm(fs, axis=1, keepdims=True) / B, rtol=1e-5)


def test_hard_feature_norm():
    lengths = np.linalg.norm(fs, axis=1, keepdims=True)
    slope = 2 * (lengths.mean() - 25) * fs / lengths / B
    loss = partial(hard_feature_norm, radius=25)
    agrees(lambda f: [loss(f), jax.grad(loss)(f)[0, 0]], [(lengths.mean() - 25) ** 2, slope[0, 0]], fs)
    slope_agrees(loss, fs)
    first = jnp.asarray(fs, "float32"), jnp.arange(B) < 2
    np.testing.assert_allclose(loss(*first), (lengths[:2].mean() - 25) ** 2, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.real_data
def test_values_of_pytorch_adapt_on_features_of_digits(data_dir):
    values = json.loads((data_dir / "references/domain/values.json").read_text())
    stored = np.load(data_dir / "references/domain/features.npz")
    s, t = stored["source_features"], stored["target_features"]
    median = np.sort(distances(s, s).ravel())[(len(s) ** 2 - 1) // 2]  # torch's, the lower of two
    fixed = lambda *scales: Gaussians(tuple(scales), variance=float(median) / 2)  # noqa: E731
    agrees_32 = lambda value, name: np.testing.assert_allclose(value, values[name], rtol=1e-4)  # noqa: E731
    agrees_32(correlation_alignment(s, t), "coral_loss")
    agrees_32(mk_mmd(s, t, kernel=fixed(1.0)), "mmd_quadratic_scale1.0_mediandefault")
    five = mk_mmd(s, t, kernel=fixed(0.25, 0.5, 1.0, 2.0, 4.0)) / 5  # there the mean of the kernels
    agrees_32(five, "mkmmd_quadratic_scales_0.25_0.5_1_2_4")
    agrees_32(mk_mmd(s, t, kernel=Gaussians((1.0,), variance=50.0)), "mmd_quadratic_bandwidth_100")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("m", [3, 8])
def test_batches_of_different_sizes(m):
    t, q = rng.normal(size=(m, 5)), rng.normal(size=(m, 4))
    kernels = (Gaussians((0.5, 2.0)), Gaussians((1.0,), 0.7))
    expected = [by_hand([(fs, t)], [Gaussians()]), by_hand([(fs, t), (gs, q)], kernels)]
    agrees(lambda s, t, p, q: [mk_mmd(s, t), joint_mmd([s, p], [t, q], kernels=kernels)], expected, fs, t, gs, q)


@pytest.mark.slow
def test_gradients_without_the_bandwidth_they_are_measured_in():
    frozen = Gaussians(variance=distances(z := np.concatenate([fs, ft]), z).mean())

    def both(s, kernel=Gaussians()):  # noqa: B008
        return mk_mmd(s, jnp.asarray(ft), kernel=kernel) + 0.7 * mk_mmd(s, jnp.asarray(ft), kernel=kernel, linear=True)

    slope_agrees(both, fs, lambda s: both(s, frozen))


@pytest.mark.slow
def test_gradients():
    def losses(x):
        s, t, p, q = x[:, :5], jnp.asarray(ft), jax.nn.softmax(x[:, 5:]), jax.nn.softmax(jnp.asarray(gt))
        fixed = Gaussians((1.0, 2.0), 0.5)
        jointly = joint_mmd([s, p], [t, q], kernels=[fixed, fixed])
        cut = sliced_wasserstein(s, t, jax.random.key(0), projections=8)
        moments = correlation_alignment(s, t, form="moments")
        return jointly + 2 * cut + 3 * moments + 5 * correlation_alignment(s, t)

    slope_agrees(losses, np.hstack([fs, gs]))


def test_the_estimates_have_no_bias():
    """Over many batches from one distribution the mean is 0, within three standard errors."""
    draw = jnp.asarray(rng.normal(size=(400, 2, 8, 3)), "float32")
    for linear in (False, True):
        one = jax.jit(
            jax.vmap(lambda z, linear=linear: mk_mmd(z[0], z[1], kernel=Gaussians((1.0,), 2.0), linear=linear))
        )
        values = np.asarray(one(draw))
        assert abs(values.mean()) < 3 * values.std() / 20


def test_identical_batches_have_the_analytic_value():
    k = np.exp(-distances(fs, fs) / 2)
    expected = 2 * (k.sum() - B) / (B * (B - 1)) - 2 * k.sum() / B**2

    def losses(s):
        one = mk_mmd(s, s, kernel=Gaussians((1.0,), variance=1.0))
        moments = correlation_alignment(s, s, form="moments")
        return [one, mk_mmd(s, s, linear=True), moments, sliced_wasserstein(s, s[::-1], jax.random.key(0))]

    agrees(losses, [expected, 0, 0, 0], fs)


def test_batches_of_one_point_over_and_over():
    """The mean distance is 0, and so is what would be divided by it."""
    same = jnp.ones((4, 3))
    value, slope = jax.jit(jax.value_and_grad(lambda s: mk_mmd(s, same) + mk_mmd(s, same, linear=True)))(same)
    assert abs(float(value)) < 1e-6
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "loss",
    [
        mk_mmd,
        correlation_alignment,
        lambda s, t: correlation_alignment(s, t, form="moments"),
        lambda s, t: sliced_wasserstein(s, t, jax.random.key(1)),
    ],
    ids=["mk_mmd", "coral", "moments", "swd"],
)
def test_the_order_of_examples_does_not_matter_nor_which_domain_is_which(loss):
    order = rng.permutation(B)
    value = float(loss(fs, ft))
    np.testing.assert_allclose(float(loss(fs[order], ft[order[::-1]])), value, rtol=1e-4)
    np.testing.assert_allclose(float(loss(ft, fs)), value, rtol=1e-4)


@pytest.mark.parametrize("linear", [False, True])
def test_rotations_and_shifts_of_both_domains_change_nothing(linear):
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    moved = [x @ turn + 100 for x in (fs, ft)]
    np.testing.assert_allclose(mk_mmd(*moved, linear=linear), mk_mmd(fs, ft, linear=linear), rtol=1e-3)
    np.testing.assert_allclose(correlation_alignment(*moved), correlation_alignment(fs, ft), rtol=1e-3)


@pytest.mark.parametrize("apart", [0.0, 1e3, 1e4])
def test_domains_far_apart_keep_the_distances_within_each(apart):
    s = jnp.asarray(rng.normal(size=(24, 16)), jnp.float32)
    t = jnp.asarray(rng.normal(size=(20, 16)) + apart, jnp.float32)
    pairs, kernel = [(np.float64(s), np.float64(t))], Gaussians((1.0,), variance=16.0)
    np.testing.assert_allclose(mk_mmd(s, t, kernel=kernel), by_hand(pairs, [kernel]), rtol=1e-5, atol=1e-6)
    expected = by_hand(pairs * 2, [kernel] * 2)
    np.testing.assert_allclose(joint_mmd([s, s], [t, t], kernels=[kernel] * 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, 3.7, 1e4])
def test_one_point_over_and_over_has_slope_zero_wherever_it_lies(value):
    s, t = (jnp.full((13, 64), value, jnp.float32) for _ in range(2))
    for loss in (mk_mmd, partial(mk_mmd, linear=True)):
        assert jnp.linalg.norm(jax.grad(loss)(s, t)) < 1e-5 * value


def test_distances_are_never_negative():
    x = jnp.asarray(1e3 + 1e-3 * rng.normal(size=(32, 8)), "float32")
    assert float(jnp.min(squared_distances(x, x))) >= 0
    np.testing.assert_allclose(squared_distances(jnp.asarray(fs), jnp.asarray(ft)), distances(fs, ft), rtol=1e-4)


def shapes(loss, *arguments):
    """The number of elements of everything that `loss` computes, from its program."""
    sizes = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            sizes.extend(np.prod(v.aval.shape, dtype=int) for v in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr)
    return sizes


def test_what_is_held_in_memory():
    """The linear estimate: nothing of B x B. The other one: nothing of B x B x D."""
    b, d = 512, 64
    x = jnp.zeros((b, d))
    assert max(shapes(lambda s: mk_mmd(s, x, linear=True), x)) <= 2 * b * d
    assert max(shapes(lambda s: mk_mmd(s, x), x)) <= b * b
    cost = lambda n: jax.jit(lambda s: mk_mmd(s, s, linear=True)).lower(x[:n]).compile().cost_analysis()["flops"]  # noqa: E731
    assert cost(512) < 2.2 * cost(256)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("n", "m"), [(6, 6), (3, 7)])
def test_sliced_wasserstein_on_one_line_is_that_of_the_quantiles(n, m):
    """In one dimension: between the quantile functions, which are steps, integrated on a grid that has all steps."""
    s, t = rng.normal(size=(n, 1)), rng.normal(size=(m, 1))
    grid = (np.arange(n * m) + 0.5) / (n * m)
    step = lambda x: np.sort(x[:, 0])[(grid * len(x)).astype(int)]  # noqa: E731
    agrees(lambda s, t: sliced_wasserstein(s, t, jax.random.key(0)), np.mean((step(s) - step(t)) ** 2), s, t)


def test_sliced_wasserstein_of_a_shift():
    """A shift by v costs |v|^2 / D on average over the lines."""
    v = np.array([3.0, 0, 0, 0, -4.0])
    value = sliced_wasserstein(fs, fs + v, jax.random.key(0), projections=4096)
    np.testing.assert_allclose(value, 25 / 5, rtol=0.05)


def test_norms_of_zero_rows_have_slope_zero():
    x = jnp.zeros((2, 3)).at[0, 0].set(2.0)
    slope = jax.jit(jax.grad(lambda f: adaptive_feature_norm(f) + jnp.sum(feature_norms(f))))(x)
    np.testing.assert_allclose(slope, [[0, 0, 0], [0, 0, 0]], atol=1e-6)  # -2 * 2 / (2 * 2) + 1 = 0 in the first
    assert feature_norms(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.slow
def test_terms_are_their_losses():
    def check(term, expected, name):
        value, metrics = value_of(term, EVEN)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert metrics[name] == value

    check(dan(), mk_mmd(fs, ft, linear=True), "dan")
    check(jan(), joint_mmd([fs, softmax(gs)], [ft, softmax(gt)]), "jan")
    check(coral(), correlation_alignment(fs, ft), "coral")
    check(coral(form="moments", on="logits"), correlation_alignment(gs, gt, form="moments"), "coral")
    check(swd(projections=9), sliced_wasserstein(fs, ft, jax.random.key(0), projections=9), "swd")
    check(afn(delta=0.5), 0.5, "afn")
    check(afn(radius=3), sum((np.linalg.norm(f, axis=1).mean() - 3) ** 2 for f in (fs, ft)), "afn")
    metrics = value_of(afn(), EVEN)[1]
    np.testing.assert_allclose(metrics["target/feature_norm"], np.linalg.norm(ft, axis=1).mean(), rtol=1e-6)


def test_which_terms_share_a_batch():
    assert jan().joint == coral().joint == ("source", "target")
    assert dan().joint == afn().joint == swd().joint == ()
    assert str(jan(kernels=(Gaussians((1.0,)), Gaussians()))).startswith("jan(kernels=(Gaussians(scales=(1.0,)")


@pytest.mark.parametrize("loss", [mk_mmd, correlation_alignment])
@pytest.mark.parametrize(
    ("s", "t", "found"),
    [((4, 3), (4, 2), r"\[4, 3\] and \[4, 2\]"), ((1, 3), (4, 3), "found 1"), ((4,), (4,), r"\[4\]")],
)
def test_shapes_that_do_not_fit(loss, s, t, found):
    with pytest.raises(DomainError, match=found):
        loss(jnp.zeros(s), jnp.zeros(t))


def test_other_mistakes():
    with pytest.raises(DomainError, match=r"as many examples.*6 and 4.*linear=False"):
        value_of(dan(), {"source": (gs, fs), "target": (gt[:4], ft[:4])})
    with pytest.raises(DomainError, match="form='paper'"):
        correlation_alignment(fs, ft, form="paper")
    with pytest.raises(DomainError, match="on='head'"):
        coral(on="head")
    with pytest.raises(DomainError, match="coral: form='paper'"):
        coral(form="paper")
    with pytest.raises(DomainError, match=r"dan: a kernel is Gaussians.*found 3"):
        dan(kernel=3)
    with pytest.raises(DomainError, match=r"jan: a kernel is Gaussians.*found 0.5"):
        jan(kernels=(Gaussians(), 0.5))
    with pytest.raises(LabelError, match=r"afn\(radius=0\): radius=0; expected a number above 0"):
        afn(radius=0)
    with pytest.raises(DomainError, match="swd needs a whole number of projections, one or more; found projections=0"):
        swd(projections=0)
    with pytest.raises(DomainError, match="2 of the source, 1 of the target and 2 kernels"):
        joint_mmd([fs, gs], [ft])
    with pytest.raises(DomainError, match="projections=0"):
        sliced_wasserstein(fs, ft, jax.random.key(0), projections=0)
    with pytest.raises(StreamError, match=r"dan\(\) reads the stream 'target'"):
        value_of(dan(), {"source": (gs, fs)})


def test_products_over_layers_are_one_kernel():
    """Two layers with kernels of one width each are one layer of both, side by side."""
    one = Gaussians((1.0,), variance=2.0)
    for estimate in (quadratic_mmd, linear_mmd):
        both = estimate([np.hstack([fs, gs])], [np.hstack([ft, gt])], [one])
        np.testing.assert_allclose(estimate([fs, gs], [ft, gt], [one, one]), both, rtol=1e-4)
