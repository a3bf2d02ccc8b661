"""Other people's NNX modules give, wrapped, what NNX gives; and what their Linen twins give."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.models import ModelError, from_flax, from_nnx
from tljax.tree import from_named, leaf_names, map_named, named_leaves
from tljax.types import is_state

KEY = jax.random.key(0)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})  # there is little to run
X = np.random.default_rng(0).normal(1.5, 2.0, (6, 4)).astype(np.float32)


def leaf_values(params):
    """Every leaf different, variances positive."""
    rng = np.random.default_rng(1)
    return map_named(lambda name, leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype), params)


def run(model, params, x, key=None, **options):
    return quick(lambda params, x, key: model.apply(params, x, key=key, **options))(params, x, key)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, switched: bool = True):
        self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 4, rngs=rngs)])
        self.first = nnx.BatchNorm(4, momentum=0.8, rngs=rngs)
        self.second = nnx.BatchNorm(4, momentum=0.8, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = self.second(self.first(x))
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)


class Told(Net):
    """The mode is an argument and overrules attributes."""

    def __call__(self, x, train: bool):
        x = self.second(self.first(x, not train), use_running_average=not train)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)


class Twin(nn.Module):
    """The same in Linen."""

    @nn.compact
    def __call__(self, x, train):
        for name in ("first", "second"):
            x = nn.BatchNorm(not train, momentum=0.8, name=name)(x)
        for i, width in enumerate((5, 4)):
            x = nn.relu(nn.Dense(width, name=f"layers_{i}")(x))
        return nn.Dense(3, name="out")(x)


def to_twin(params):
    return from_named({name.replace("layers/", "layers_"): leaf for name, leaf in named_leaves(params).items()})


CASES = [(Net, ()), (Told, ("first",)), (lambda rngs: Net(rngs), ("second",))]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("factory", "frozen"), CASES)
def test_the_same_as_the_linen_twin(factory, frozen):
    model, twin = from_nnx(factory), from_flax(Twin())
    params = leaf_values(jax.eval_shape(model.init, KEY, X))
    names = frozenset(f"backbone/{name}/batch_stats/{s}" for name in frozen for s in ("mean", "var"))
    assert set(named_leaves(to_twin(params))) == set(leaf_names(twin.init(KEY, X)))
    for options in ({}, {"train": True, "frozen": names}):
        out, expected = run(model, params, X, **options), run(twin, to_twin(params), X, **options)
        np.testing.assert_allclose(out.logits, expected.logits, rtol=1e-5)
        np.testing.assert_allclose(out.features, expected.features, rtol=1e-5, atol=1e-6)
    holes = jax.tree.structure(params, is_leaf=lambda x: x is None)
    assert jax.tree.structure(out.stats, is_leaf=lambda x: x is None) == holes
    for name, leaf in named_leaves(to_twin(params)).items():
        assert (name in named_leaves(to_twin(out.stats))) == is_state(name)
        if is_state(name):
            new = named_leaves(to_twin(out.stats))[name]
            np.testing.assert_allclose(new, named_leaves(expected.stats)[name], rtol=1e-5)
            assert np.array_equal(new, leaf) == (name in names)


@pytest.mark.slow
def test_init_is_the_factorys():
    params = from_nnx(Net).init(KEY, X)
    module = Net(nnx.Rngs(KEY))
    np.testing.assert_allclose(params["head"]["kernel"], module.out.kernel[...], rtol=1e-5)
    np.testing.assert_allclose(params["backbone"]["layers"]["1"]["kernel"], module.layers[1].kernel[...], rtol=1e-5)
    other = from_nnx(Net).init(jax.random.key(1), jax.ShapeDtypeStruct(X.shape, jnp.float32))
    assert np.max(np.abs(other["head"]["kernel"] - params["head"]["kernel"])) > 0.1


def test_an_instance_gives_its_own_values_and_never_changes():
    module = Net(nnx.Rngs(3))
    model, before = from_nnx(module), jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module)))
    params = model.init(KEY, X)
    np.testing.assert_array_equal(params["head"]["kernel"], before["out"]["kernel"])
    module.eval()
    np.testing.assert_allclose(run(model, params, X).logits, module(X), rtol=1e-5)
    run(model, params, X, train=True)
    assert type(module.first) is nnx.BatchNorm
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(module)), before)
    jax.tree.map(lambda leaf: leaf.delete(), params)  # as a donated buffer is
    module.out.kernel[...] = module.out.kernel[...] + 1
    np.testing.assert_array_equal(model.init(KEY, X)["head"]["kernel"], before["out"]["kernel"] + 1)
    assert model.name == "Net"


class Nested(nnx.Module):
    def __init__(self, *, rngs):
        self.encoder = nnx.Sequential(nnx.Linear(4, 6, rngs=rngs), nnx.tanh, nnx.Dropout(0.5, rngs=rngs))
        self.decoder = nnx.Dict(neck=nnx.Linear(6, 5, rngs=rngs), classifier=nnx.Linear(5, 3, rngs=rngs))
        self.gain = nnx.Param(jnp.ones(3))

    def __call__(self, batch):
        x = nnx.remat(lambda neck, x: neck(x))(self.decoder["neck"], self.encoder(batch["x"]))
        return {"logits": self.decoder["classifier"](x) * self.gain[None]}


class Inherited(Nested):
    pass


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("head", "width"), [("decoder/classifier", 5), (None, 5), ("decoder/neck", 6), ("encoder", 4)])
def test_heads_by_path(head, width):
    model = from_nnx(Inherited, head=head, groups=("**",), name="mine")
    params = model.init(KEY, {"x": X})
    assert len(leaf_names(params)) == 7
    assert len(leaf_names(params["head"])) == 2
    assert run(model, params, {"x": X}).features.shape == (6, width)
    assert (model.groups, model.name) == (("**",), "mine")


def test_dropout_draws_from_the_key():
    model = from_nnx(Nested)
    params = model.init(KEY, {"x": X})
    one, same, other = (run(model, params, {"x": X}, jax.random.key(i), train=True).logits for i in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.max(np.abs(one - other)) > 0.01
    assert run(model, params, {"x": X}, KEY, train=True).stats is None
    with pytest.raises(ModelError, match="Nested draws random numbers with train=True: give apply a key"):
        run(model, params, {"x": X}, train=True)


def test_gradient_and_one_program_for_many_models():
    model = from_nnx(Net)
    params = jax.vmap(lambda key: leaf_values(jax.eval_shape(model.init, key, X)))(jax.random.split(KEY, 2))

    def loss(params):
        return jnp.sum(model.apply(params, X, train=True).logits ** 2)

    def twin(params):
        return jnp.sum(from_flax(Twin()).apply(to_twin(params), X, train=True).logits ** 2)

    grads = quick(jax.vmap(jax.grad(loss)))(params)
    expected = quick(jax.grad(twin))(jax.tree.map(lambda leaf: leaf[1], params))
    for name, leaf in named_leaves(expected).items():
        np.testing.assert_allclose(named_leaves(grads)[name][1], leaf, rtol=1e-3, atol=1e-3, err_msg=name)


class Counter(nnx.Variable):
    pass


class Carrying(nnx.Module):
    def __init__(self, rngs):
        self.head, self.backbone = nnx.Linear(4, 3, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.backbone.calls = Counter(jnp.zeros((), jnp.int32))

    def __call__(self, x, rngs):
        self.backbone.calls[...] += 1
        return self.head(self.backbone(x) + rngs.normal(x.shape)), x


def test_other_variables_are_carried_and_split_modules_kept():
    model = from_nnx(Carrying)
    params = model.init(KEY, X)
    assert leaf_names(params) == [
        "backbone/batch_stats/Counter/calls",
        "backbone/bias",
        "backbone/kernel",
        "head/bias",
        "head/kernel",
    ]
    out = run(model, params, X, KEY, train=True)
    assert out.stats["backbone"]["batch_stats"]["Counter"]["calls"] == 1
    np.testing.assert_array_equal(out.features, X)
    assert run(model, params, X).stats is None
    out = run(model, params, X, KEY, train=True, frozen={"backbone/batch_stats/Counter/calls"})
    assert out.stats["backbone"]["batch_stats"]["Counter"]["calls"] == 0


class Tabled(nnx.Module):
    def __init__(self, rngs):
        self.table, self.shift = nnx.data(jnp.arange(4.0)), np.ones(1, np.float32)

    def __call__(self, x):
        return x * self.table[None] + self.shift[None]


class Bare(nnx.Module):
    def __init__(self, rngs):
        self.table = jnp.arange(4.0)

    def __call__(self, x):
        return x * self.table[None]


def test_bare_arrays_are_carried():
    model = from_nnx(Tabled)
    params = model.init(KEY, X)
    assert leaf_names(params) == ["backbone/batch_stats/constants/shift", "backbone/batch_stats/constants/table"]
    out = run(model, params, X, train=True)
    np.testing.assert_allclose(out.logits, X * np.arange(4) + 1, rtol=1e-6)
    assert [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(out.stats), jax.tree.leaves(params))] == [True, True]


class Unswitched(nnx.Module):
    def __init__(self, rngs):
        self.top = nnx.BatchStat(jnp.ones(()))

    def __call__(self, x):
        return x / self.top[...]


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match=r"head='ouf': no submodule of that name was called.*'out'"):
        from_nnx(Net, head="ouf").init(KEY, X)
    with pytest.raises(ModelError, match=r"'table' is a bare array made while tracing.*nnx.Variable"):
        from_nnx(Bare).init(KEY, X)
    np.testing.assert_allclose(from_nnx(Bare(None)).init(KEY, X)["backbone"]["batch_stats"]["constants"]["table"][3], 3)
    with pytest.raises(ModelError, match="the factory returned str"):
        from_nnx(lambda rngs: "net").init(KEY, X)
    with pytest.raises(ModelError, match=r"takes an nnx.Module or a factory"):
        from_nnx(3)
    model = from_nnx(Net)
    backbone = {"backbone": model.init(KEY, X)["backbone"]}
    with pytest.raises(ModelError, match="parameters lack 2 leaves that the module has, first 'head/"):
        model.apply(backbone, X)
    model = from_nnx(Unswitched)
    params = model.init(KEY, X)
    with pytest.raises(ModelError, match=r"\(Unswitched\) cannot be frozen"):
        model.apply(params, X, train=True, frozen={"backbone/batch_stats/top"})
    with pytest.raises(ModelError, match="is not a statistic"):
        model.apply(params, X, train=True, frozen={"backbone/batch_stats/bottom"})
