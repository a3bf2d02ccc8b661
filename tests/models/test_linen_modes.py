"""Frozen normalisation: no update, running statistics in use, in any module and however it is switched."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, from_flax
from tljax.tree import leaf_names, map_named

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(1.5, 2.0, (6, 4)).astype(np.float32)


def leaf_values(params):
    """Every leaf different, variances positive."""
    rng = np.random.default_rng(1)
    return map_named(lambda name, leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype), params)


def by_hand(x, norm, axes=(0,), epsilon=1e-5, running=True):
    """BatchNorm in NumPy and float64: the output, and the new statistics for momentum 0.8."""
    norm = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), norm)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    mean, var = norm["batch_stats"]["mean"], norm["batch_stats"]["var"]
    if not running:
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        new = {"mean": 0.8 * mean + 0.2 * batch_mean, "var": 0.8 * var + 0.2 * batch_var}
        mean, var = batch_mean, batch_var
    else:
        new = norm["batch_stats"]
    y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + epsilon)
    return y * norm["scale"].reshape(shape) + norm["bias"].reshape(shape), new


class Called(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(momentum=0.8, name="first")(x, use_running_average=not train)
        return nn.BatchNorm(not train, momentum=0.8, name="second")(x)


class Positional(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        for name in ("first", "second"):
            x = nn.BatchNorm(momentum=0.8, name=name)(x, not training)
        return x


class Constructed(nn.Module):
    @nn.compact
    def __call__(self, x):
        for name in ("first", "second"):
            x = nn.BatchNorm(use_running_average=False, momentum=0.8, name=name)(x)
        return x


class Undecided(nn.Module):
    def setup(self):
        self.first, self.second = nn.BatchNorm(momentum=0.8), nn.BatchNorm(momentum=0.8)

    def __call__(self, x):
        return self.second(self.first(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("frozen", [(), ("first",), ("second",), ("first", "second")])
@pytest.mark.parametrize("module", [Called(), Positional(), Constructed(), Undecided()])
def test_frozen_layers_keep_and_use_their_statistics(module, frozen):
    model = from_flax(module)
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    names = frozenset(f"backbone/{name}/batch_stats/{s}" for name in frozen for s in ("mean", "var"))
    out = jax.jit(lambda params: model.apply(params, X, train=True, frozen=names))(params)
    y = X.astype(np.float64)
    for name in ("first", "second"):
        y, stats = by_hand(y, params["backbone"][name], running=name in frozen)
        new = out.stats["backbone"][name]["batch_stats"]
        if name in frozen:
            np.testing.assert_array_equal(new["mean"], params["backbone"][name]["batch_stats"]["mean"])
            np.testing.assert_array_equal(new["var"], params["backbone"][name]["batch_stats"]["var"])
        np.testing.assert_allclose(new["mean"], stats["mean"], rtol=1e-4)
        np.testing.assert_allclose(new["var"], stats["var"], rtol=1e-4)
    np.testing.assert_allclose(out.logits, y, rtol=1e-3, atol=1e-4)


def test_one_statistic_freezes_its_layer():
    model = from_flax(Called())
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    one = model.apply(params, X, train=True, frozen={"backbone/first/batch_stats/var"})
    both = model.apply(params, X, train=True, frozen={f"backbone/first/batch_stats/{s}" for s in ("mean", "var")})
    np.testing.assert_array_equal(one.logits, both.logits)
    np.testing.assert_array_equal(
        one.stats["backbone"]["first"]["batch_stats"]["mean"], params["backbone"]["first"]["batch_stats"]["mean"]
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("average", [None, False])
@pytest.mark.parametrize(("axis", "axes"), [(-1, (0, 1)), (1, (0, 2)), ((1, 2), (0,))])
def test_any_axis(axis, axes, average):
    x = np.random.default_rng(2).normal(1.0, 2.0, (3, 4, 5)).astype(np.float32)
    model = from_flax(nn.BatchNorm(average, axis=axis, momentum=0.8, epsilon=1e-3))
    params = leaf_values(jax.eval_shape(model.init, KEY, x))
    names = {name for name in leaf_names(params) if "batch_stats" in name}
    assert names == {"backbone/batch_stats/mean", "backbone/batch_stats/var"}
    for frozen in (set(), names):
        out = model.apply(params, x, train=True, frozen=frozen)
        y, stats = by_hand(x.astype(np.float64), params["backbone"], axes, 1e-3, running=bool(frozen))
        np.testing.assert_allclose(out.logits, y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.stats["backbone"]["batch_stats"]["var"], stats["var"], rtol=1e-4)


def test_gradients_see_running_statistics_as_constants():
    model = from_flax(Constructed())
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    names = frozenset(name for name in leaf_names(params) if "batch_stats" in name)
    grad = jax.grad(lambda x: jnp.sum(model.apply(params, x, train=True, frozen=names).logits[:, 0]))(X)
    slope = 1.0
    for name in ("first", "second"):
        norm = params["backbone"][name]
        slope = slope * norm["scale"][0] / np.sqrt(norm["batch_stats"]["var"][0] + 1e-5)
    np.testing.assert_allclose(grad[:, 0], np.full(6, slope), rtol=1e-5)
    np.testing.assert_array_equal(grad[:, 1:], 0)


class Custom(nn.Module):
    """Somebody's own normalisation by a running maximum, with a switch."""

    @nn.compact
    def __call__(self, x, train=False):
        top = self.variable("batch_stats", "top", lambda: jnp.ones(()))
        if train:
            top.value = jnp.max(jnp.abs(x))
        return x / top.value


class Unswitched(nn.Module):
    @nn.compact
    def __call__(self, x):
        top = self.variable("batch_stats", "top", lambda: jnp.ones(()))
        top.value = jnp.max(jnp.abs(x))
        return x / top.value


class Around(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x, train=False):
        return self.inner(x, train) if isinstance(self.inner, Custom) else self.inner(x)


def test_own_layers_need_a_switch():
    model = from_flax(Around(Custom()))
    params = model.init(KEY, X)
    name = "backbone/inner/batch_stats/top"
    assert model.apply(params, X, train=True).stats["backbone"]["inner"]["batch_stats"]["top"] == np.abs(X).max()
    out = model.apply(params, X, train=True, frozen={name})
    np.testing.assert_array_equal(out.logits, X)
    assert out.stats["backbone"]["inner"]["batch_stats"]["top"] == 1
    model = from_flax(Around(Unswitched()))
    params = model.init(KEY, X)
    with pytest.raises(ModelError, match=r"statistics of 'inner' \(Unswitched\) cannot be frozen.*use_running_average"):
        model.apply(params, X, train=True, frozen={name})


def test_frozen_layers_inside_a_scan():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(not train, momentum=0.8, name="norm")(x), None

    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            layers = nn.scan(
                nn.remat(Layer, static_argnums=(2,)),
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=2,
            )
            return layers(name="layers")(x, train)[0]

    model = from_flax(Scanned())
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    names = {name for name in leaf_names(params) if "batch_stats" in name}
    assert names == {"backbone/layers/norm/batch_stats/mean", "backbone/layers/norm/batch_stats/var"}
    for frozen in (set(), names):
        y = X.astype(np.float64)
        for i in range(2):
            norm = jax.tree.map(lambda leaf, i=i: leaf[i], params["backbone"]["layers"]["norm"])
            y, _ = by_hand(y, norm, running=bool(frozen))
        out = model.apply(params, X, train=True, frozen=frozen)
        np.testing.assert_allclose(out.logits, y, rtol=1e-3, atol=1e-4)
        changed = out.stats["backbone"]["layers"]["norm"]["batch_stats"]["mean"]
        assert np.array_equal(changed, params["backbone"]["layers"]["norm"]["batch_stats"]["mean"]) == bool(frozen)


def test_spectral_normalisation():
    class Spectral(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.SpectralNorm(nn.Dense(3, name="dense"), name="spectral")(x, update_stats=train)

    model = from_flax(Spectral())
    params = model.init(KEY, X)
    names = [name for name in leaf_names(params) if "batch_stats" in name]
    assert len(names) == 2
    free, held = (model.apply(params, X, train=True, frozen=frozen) for frozen in (set(), names))
    for part, same in ((free, False), (held, True)):
        old = jax.tree.leaves(params["backbone"]["spectral"])
        assert all(np.array_equal(a, b) for a, b in zip(old, jax.tree.leaves(part.stats))) == same
    np.testing.assert_allclose(held.logits, model.apply(params, X).logits, rtol=1e-6)


def test_unknown_frozen_names_are_refused():
    model = from_flax(Called())
    params = model.init(KEY, X)
    with pytest.raises(ModelError, match=r"'backbone/frist/batch_stats/mean'.*'backbone/first/batch_stats/mean'"):
        model.apply(params, X, train=True, frozen={"backbone/frist/batch_stats/mean"})
