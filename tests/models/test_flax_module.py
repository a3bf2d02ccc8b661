"""Other people's Linen modules give, wrapped, what Linen gives."""

import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, from_flax
from tljax.tree import from_named, leaf_names, map_named, named_leaves
from tljax.types import Model, Output

KEY = jax.random.key(0)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})  # there is little to run
ROWS = jax.random.normal(jax.random.key(1), (5, 6))
IMAGES = jax.random.normal(jax.random.key(2), (4, 8, 8, 3))


class Compact(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(7)(x)))  # the outer layer is made first: Dense_0 is the head


class Decoder(nn.Module):
    def setup(self):
        self.neck, self.classifier = nn.Dense(5), nn.Dense(3)

    def __call__(self, x):
        return self.classifier(nn.tanh(self.neck(x)))


class Setup(nn.Module):
    def setup(self):
        self.encoder, self.decoder, self.gain = nn.Dense(7), Decoder(), nn.Dense(3, use_bias=False)

    def __call__(self, x):
        return self.gain(self.decoder(nn.relu(self.encoder(x))))


class ConvNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        for i in range(2):
            x = nn.Conv(4, (3, 3), name=f"conv_{i}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.8, name=f"norm_{i}")(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        x = nn.Dropout(0.5)(nn.Dense(7)(x), deterministic=deterministic)
        return nn.Dense(3)(x)


class Split(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Decoder(name="head")(nn.Dense(5, name="backbone")(x))


class Headless(nn.Module):
    """A convolutional classifier with a gate: its last Dense is no head."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = x * nn.sigmoid(nn.Dense(4)(x.mean((1, 2))))[:, None, None, :]
        return nn.Conv(3, (1, 1))(x).mean((1, 2))


def made(model: Model, x: Any) -> Any:
    """Parameters in the model's tree, every leaf different, statistics positive; quicker than to compile `init`."""
    rng = np.random.default_rng(1)

    def value(name: str, leaf: Any) -> Any:
        low, high = (0.5, 2.0) if "batch_stats" in name else (-0.7, 0.9)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return map_named(value, jax.eval_shape(model.init, KEY, x))


def to_linen(params: Any, head: str) -> Any:
    """What Linen calls the same leaves."""
    variables: dict[str, Any] = {}
    for name, leaf in named_leaves(params).items():
        collection = "batch_stats" if "batch_stats" in name else "params"
        name = re.sub("^head/", f"{head}/", name).removeprefix("backbone/").replace("batch_stats/", "")
        variables[f"{collection}/{name}"] = leaf
    return from_named(variables)


def run(model: Model, params: Any, x: Any, key: Any = None, **options: Any) -> Output:
    return quick(lambda params, x, key: model.apply(params, x, key=key, **options))(params, x, key)


def linen(module: nn.Module, variables: Any, x: Any, rngs: Any = None, mutable: Any = False, **arguments: Any) -> Any:
    return quick(lambda v, x, rngs: module.apply(v, x, rngs=rngs, mutable=mutable, **arguments))(variables, x, rngs)


def close(a: Any, b: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), a, b)


def test_compact_mlp_bit_for_bit():
    model, variables = from_flax(Compact()), quick(Compact().init)(KEY, ROWS)
    params = model.init(KEY, ROWS)
    assert leaf_names(params) == [
        "backbone/Dense_1/bias",
        "backbone/Dense_1/kernel",
        "head/bias",
        "head/kernel",
    ]
    close(params["head"], variables["params"]["Dense_0"])
    out = run(model, params, ROWS)
    hidden = variables["params"]["Dense_1"]
    close(out.logits, linen(Compact(), variables, ROWS))
    close(out.features, np.maximum(ROWS @ hidden["kernel"] + hidden["bias"][None], 0))
    assert out.stats is None
    assert run(model, params, ROWS, train=True, key=KEY).stats is None
    assert model.groups == ("backbone/**", "head/**")
    assert model.name == "Compact"


@pytest.mark.parametrize(
    ("head", "in_head", "width"),
    [(None, "gain", 3), ("decoder/classifier", "decoder/classifier", 5), ("decoder", "decoder", 7)],
)
def test_setup_style_with_the_head_anywhere(head, in_head, width):
    model = from_flax(Setup(), head=head, name="mine")
    params = made(model, ROWS)
    variables = to_linen(params, in_head)
    out = run(model, params, ROWS)
    close(out.logits, linen(Setup(), variables, ROWS))
    assert out.features.shape == (5, width)
    assert len(leaf_names(params)) == 7
    assert model.name == "mine"


def test_convolutions_with_normalisation():
    model, module = from_flax(ConvNorm()), ConvNorm()
    params = made(model, IMAGES)
    variables = to_linen(params, "Dense_0")
    assert leaf_names(params)[:6] == [
        "backbone/conv_0/bias",
        "backbone/conv_0/kernel",
        "backbone/conv_1/bias",
        "backbone/conv_1/kernel",
        "backbone/norm_0/batch_stats/mean",
        "backbone/norm_0/batch_stats/var",
    ]
    close(run(model, params, IMAGES).logits, linen(module, variables, IMAGES, train=False))
    expected, new = linen(module, variables, IMAGES, train=True, mutable=["batch_stats"])
    out = run(model, params, IMAGES, train=True)
    close(out.logits, expected)
    for norm in ("norm_0", "norm_1"):
        close(out.stats["backbone"][norm]["batch_stats"], new["batch_stats"][norm])
    holes = jax.tree.structure(params, is_leaf=lambda x: x is None)
    assert jax.tree.structure(out.stats, is_leaf=lambda x: x is None) == holes
    assert set(named_leaves(out.stats)) == {name for name in named_leaves(params) if "batch_stats" in name}


class Built(nn.Module):
    """Normalisation and dropout told by their constructors only."""

    average: bool | None
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=self.average, momentum=0.8)(nn.Dense(4)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=self.deterministic)(x))


class Norm(nn.Module):
    """The same function with everything told in the call."""

    @nn.compact
    def __call__(self, x, average, deterministic):
        x = nn.BatchNorm(momentum=0.8, name="BatchNorm_0")(nn.Dense(4)(x), use_running_average=average)
        return nn.Dense(3)(nn.Dropout(0.5)(x, deterministic=deterministic))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("average", "deterministic", "in_training"), [(None, None, False), (False, False, False), (True, None, True)]
)
def test_constructors_rule_training_and_never_inference(average, deterministic, in_training):
    model, module = from_flax(Built(average, deterministic)), Norm()
    params = made(model, ROWS)
    variables = to_linen(params, "Dense_1")
    close(run(model, params, ROWS).logits, linen(module, variables, ROWS, average=True, deterministic=True))
    expected, new = linen(
        module, variables, ROWS, {"dropout": KEY}, ["batch_stats"], average=in_training, deterministic=False
    )
    out = run(model, params, ROWS, train=True, key=KEY)
    assert out.features.shape == (5, 4)
    close(out.stats["backbone"]["BatchNorm_0"]["batch_stats"], new["batch_stats"]["BatchNorm_0"])
    close(out.logits, expected)


class Field(nn.Module):
    """The mode is a field of the module, as in many older examples."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not self.train)(x))


class Merged(nn.Module):
    """A field or an argument, one of them."""

    is_training: bool | None = None

    @nn.compact
    def __call__(self, x, is_training=None):
        training = nn.merge_param("is_training", self.is_training, is_training)
        return nn.Dense(3)(nn.BatchNorm(use_running_average=not training)(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("module", [Field(), Field(train=False), Merged(), Merged(is_training=True)])
def test_the_mode_may_be_a_field(module):
    model = from_flax(module)
    params = made(model, ROWS)
    norm = jax.tree.map(lambda leaf: leaf[None], params["backbone"]["BatchNorm_0"])

    def normalised(mean, var):
        return (ROWS - mean) / jnp.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]

    stats = norm["batch_stats"]
    close(run(model, params, ROWS).features, normalised(stats["mean"], stats["var"]))
    batch = ROWS.mean(0, keepdims=True), ROWS.var(0, keepdims=True)
    close(run(model, params, ROWS, train=True).features, normalised(*batch))


def test_layers_that_nobody_switches_follow_train():
    module = nn.Sequential([nn.Dense(4), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(3)])
    model = from_flax(module)
    params = made(model, ROWS)
    assert "backbone/layers_1/batch_stats/mean" in leaf_names(params)
    assert not np.any(np.asarray(run(model, params, ROWS).features) == 0)
    trained = run(model, params, ROWS, train=True, key=KEY)
    assert 0 < np.mean(np.asarray(trained.features) == 0) < 1
    assert np.any(np.asarray(trained.stats["backbone"]["layers_1"]["batch_stats"]["mean"]) != 0)


def test_dropout_draws_from_the_key():
    model = from_flax(Dropped())
    params = made(model, ROWS)
    variables = to_linen(params, "Dense_1")
    close(run(model, params, ROWS).logits, linen(Dropped(), variables, ROWS))
    expected = linen(Dropped(), variables, ROWS, deterministic=False, rngs={"dropout": KEY})
    close(run(model, params, ROWS, train=True, key=KEY).logits, expected)
    with pytest.raises(ModelError, match="Dropped draws random numbers with train=True: give apply a key"):
        run(model, params, ROWS, train=True)


def test_any_stream_gets_the_key():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x + jax.random.normal(self.make_rng("noise"), x.shape))

    model = from_flax(Noisy())
    params = made(model, ROWS)
    one, same, other = (run(model, params, ROWS, jax.random.key(i)).features for i in (1, 1, 2))
    close(one, same)
    assert np.max(np.abs(one - other)) > 0.1


def test_a_module_already_split_is_taken_as_it_is():
    model = from_flax(Split())
    params = made(model, ROWS)
    assert set(params) == {"backbone", "head"}
    assert leaf_names(params)[:3] == ["backbone/bias", "backbone/kernel", "head/classifier/bias"]
    close(run(model, params, ROWS).features, linen(nn.Dense(5), {"params": params["backbone"]}, ROWS))
    close(made(from_flax(Split(), head="head"), ROWS), params)
    other = made(from_flax(Split(), head="head/classifier"), ROWS)
    assert leaf_names(other)[2:4] == ["backbone/head/neck/bias", "backbone/head/neck/kernel"]


@pytest.mark.parametrize("module", [Headless(), nn.Conv(3, (3, 3))])
def test_without_a_head_all_is_backbone(module):
    model = from_flax(module)
    params = made(model, IMAGES)
    assert set(params) == {"backbone"}
    out = run(model, params, IMAGES)
    close(out.logits, linen(module, to_linen(params, ""), IMAGES))
    close(out.features, out.logits.reshape(4, -1))


def test_a_head_called_twice_gives_its_last_input():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            head = nn.Dense(6)
            return head(head(x))

    model = from_flax(Twice())
    params = made(model, ROWS)
    close(run(model, params, ROWS).features, linen(nn.Dense(6), {"params": params["head"]}, ROWS))


def test_a_single_dense_is_all_head():
    model = from_flax(nn.Dense(3))
    params = made(model, ROWS)
    assert leaf_names(params) == ["head/bias", "head/kernel"]
    close(run(model, params, ROWS).features, ROWS)


class Returning(nn.Module):
    form: str

    @nn.compact
    def __call__(self, inputs):
        features = nn.relu(nn.Dense(7)(inputs["a"]) + nn.Dense(7)(inputs["b"]))
        logits = nn.Dense(3)(features)
        own = features[:, :2]
        forms = {
            "tuple": (logits, own),
            "dict": {"logits": logits, "features": own},
            "bare": {"logits": logits},
            "output": Output(logits, own),
            "three": (logits, own, own),
        }
        return forms[self.form]


@pytest.mark.parametrize(("form", "width"), [("tuple", 2), ("dict", 2), ("bare", 7), ("output", 2)])
def test_other_inputs_and_results(form, width):
    model, x = from_flax(Returning(form)), {"a": ROWS, "b": ROWS[:, :2]}
    params = made(model, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x))
    out = jax.jit(model.apply)(params, x)
    assert out.logits.shape == (5, 3)
    assert out.features.shape == (5, width)
    assert "head/kernel" in leaf_names(params)


def test_init_reads_shape_and_dtype_only():
    model = from_flax(Compact())
    reference = model.init(KEY, ROWS)
    close(model.init(KEY, np.full((9, 6), np.nan)), reference)  # float64 and nan
    close(model.init(KEY, jax.ShapeDtypeStruct((5, 6), jnp.float32)), reference)


class Carrying(nn.Module):
    """A counter that it carries, a loss that it sows, and a value in a nested dict."""

    @nn.compact
    def __call__(self, x, train=False):
        calls = self.variable("counters", "calls", lambda: {"n": jnp.zeros((), jnp.int32)})
        scale = self.variable("batch_stats", "ema", lambda: {"a": {"b": jnp.ones(())}})
        self.sow("losses", "l2", jnp.sum(x**2), reduce_fn=lambda a, b: a + b, init_fn=lambda: jnp.zeros(()))
        self.sow("intermediates", "x", x)
        if train:
            calls.value = {"n": calls.value["n"] + 1}
            scale.value = {"a": {"b": scale.value["a"]["b"] * 2}}
        return nn.Dense(3)(x * scale.value["a"]["b"])


def test_other_collections_are_carried_and_sown_ones_dropped():
    model = from_flax(Carrying())
    params = model.init(KEY, ROWS)
    assert leaf_names(params) == [
        "backbone/calls/batch_stats/counters/n",
        "backbone/ema/a/batch_stats/b",
        "head/bias",
        "head/kernel",
    ]
    for expected in (1, 2):
        out = run(model, params, ROWS, train=True)
        params = {**params, "backbone": out.stats["backbone"]}
        assert out.stats["backbone"]["calls"]["batch_stats"]["counters"]["n"] == expected
        assert params["backbone"]["ema"]["a"]["batch_stats"]["b"] == 2**expected
    assert run(model, params, ROWS).stats is None
    out = run(model, params, ROWS, train=True, frozen={"backbone/calls/batch_stats/counters/n"})
    assert out.stats["backbone"]["calls"]["batch_stats"]["counters"]["n"] == 2
    assert out.stats["backbone"]["ema"]["a"]["batch_stats"]["b"] == 8


def test_partitioning_boxes_are_taken_off():
    kernel = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    model = from_flax(nn.Sequential([nn.Dense(4, kernel_init=kernel), nn.Dense(3)]))
    params = model.init(KEY, ROWS)
    assert isinstance(params["backbone"]["layers_0"]["kernel"], jax.Array)
    assert run(model, params, ROWS).logits.shape == (5, 3)


def test_rematerialised_heads_give_features():
    class Remat(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.remat(Decoder)(name="decoder")(nn.relu(nn.Dense(7)(x)))

    model = from_flax(Remat())
    params = made(model, ROWS)

    def loss(params):
        out = model.apply(params, ROWS)
        return jnp.sum(out.logits) + jnp.sum(out.features**2)

    assert run(model, params, ROWS).features.shape == (5, 5)
    assert leaf_names(params)[-2:] == ["head/bias", "head/kernel"]
    assert np.any(np.asarray(quick(jax.grad(loss))(params)["backbone"]["Dense_0"]["kernel"]) != 0)


def test_gradients_are_those_of_the_module():
    model, module = from_flax(ConvNorm()), ConvNorm()
    params = made(model, IMAGES)
    variables = to_linen(params, "Dense_0")

    def direct(p):
        out = module.apply({**variables, "params": p}, IMAGES, True, mutable=["batch_stats"])[0]
        return jnp.sum(jnp.sin(out))

    grads = quick(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, IMAGES, train=True).logits))))(params)
    expected = quick(jax.grad(direct))(variables["params"])
    close(grads["head"], expected["Dense_0"])
    close(grads["backbone"]["conv_0"], expected["conv_0"])
    close(grads["backbone"]["norm_1"]["scale"], expected["norm_1"]["scale"])


@pytest.mark.slow
def test_one_program_for_many_models():
    model = from_flax(ConvNorm())
    keys = jax.random.split(KEY, 2)
    params = quick(jax.vmap(lambda key: model.init(key, IMAGES)))(keys)
    out = quick(jax.vmap(lambda p: model.apply(p, IMAGES, train=True)))(params)
    assert out.logits.shape == (2, 4, 3)
    one = run(model, jax.tree.map(lambda leaf: leaf[1], params), IMAGES, train=True)
    close(out.logits[1], one.logits)
    close(jax.tree.map(lambda leaf: leaf[1], out.stats), one.stats)


def test_traced_once_for_a_shape():
    traces = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            traces.append(x.shape)
            return nn.Dense(3)(x)

    model = from_flax(Counted())
    params = model.init(KEY, ROWS)
    apply = jax.jit(model.apply)
    apply(params, ROWS)
    seen = len(traces)
    for _ in range(3):
        apply(params, ROWS)
        model.init(jax.random.key(7), ROWS)
    assert len(traces) == seen


def test_errors_name_the_thing():
    with pytest.raises(ModelError, match=r"head='Dense_7': no submodule of that name was called.*'Dense_1'"):
        from_flax(Compact(), head="Dense_7").init(KEY, ROWS)
    with pytest.raises(ModelError, match=r"takes a flax.linen.Module"):
        from_flax(Compact)
    with pytest.raises(ModelError, match="tuple of 3"):
        from_flax(Returning("three")).init(KEY, {"a": ROWS, "b": ROWS})


def test_a_module_with_the_markers_name_is_refused():
    class Bad(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.Dense(3, name="batch_stats")(x))

    with pytest.raises(ModelError, match="rename that module"):
        from_flax(Bad()).init(KEY, ROWS)
