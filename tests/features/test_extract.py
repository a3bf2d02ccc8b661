"""Features are those of the model run by hand, whatever the data's form, the layer, the batch and the devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.data import Dataset, TextData, stream
from tljax.features import FeatureError, extract, layers
from tljax.models import from_flax, from_nnx
from tljax.models.bert import bert
from tljax.types import Batch, Model, Output

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(21, 6, 6, 2)).astype(np.float32), np.arange(21, dtype=np.int32) % 3


class Net(nn.Module):
    """Two convolutions, the second checkpointed, one of them called twice."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        again = nn.remat(nn.Conv)(4, (3, 3), name="again")
        x = again(again(x))
        return nn.Dense(3, name="last")(x.mean((1, 2)))


NET = from_flax(Net())
PARAMS = NET.init(jax.random.key(0), X[:1])


def got(data=X, *, model=NET, params=PARAMS, **options):
    return extract(model, params, data, **{"batch_size": 8, "progress": False} | options)


def by_hand():
    """The outputs of the layers, by Flax alone."""
    variables = {"params": {"last": PARAMS["head"], **PARAMS["backbone"]}}
    logits, state = Net().apply(variables, X, capture_intermediates=True)
    seen = {name: values["__call__"][-1] for name, values in state["intermediates"].items() if name != "__call__"}
    return np.asarray(logits), {name: np.asarray(value) for name, value in seen.items()}


def close(a, b, tol=2e-6):
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


def test_features_and_logits_are_those_of_the_model():
    logits, seen = by_hand()
    found = got((X, Y))
    close(found.logits, logits)
    close(found.features, seen["again"].mean((1, 2)))
    assert found.labels.tolist() == Y.tolist()
    assert (found.classes, found.fingerprint) == ((), None)
    assert isinstance(found.features, np.ndarray)


@pytest.mark.parametrize(
    ("layer", "name"), [("backbone/first", "first"), ("backbone/again", "again"), ("**/fir*", "first")]
)
def test_layers_inside_are_pooled(layer, name):
    inside = by_hand()[1][name]
    close(got(layer=layer).features, inside.mean((1, 2)))
    close(got(layer=layer, pooling="max").features, inside.max((1, 2)))
    flat = got(layer=layer, pooling="flatten")
    close(flat.features, inside.reshape(21, -1))
    assert flat.logits is None


def test_the_logits_are_a_layer_too():
    logits, _ = by_hand()
    close(got(layer="logits").features, logits)
    close(got(layer="head").features, logits)


def test_layers_are_listed_with_their_shapes():
    found = {name: spec.shape for name, spec in layers(NET, PARAMS, X[:2]).items()}
    assert found == {"backbone/first": (2, 6, 6, 4), "backbone/again": (2, 6, 6, 4), "head": (2, 3)}


def test_nnx_modules_have_layers():
    class Mlp(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 6, rngs=rngs)])
            self.out = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            for layer in self.hidden:
                x = nnx.relu(layer(x))
            return self.out(x)

    model, x = from_nnx(Mlp), RNG.normal(size=(9, 4)).astype(np.float32)
    params = model.init(jax.random.key(0), x)
    assert list(layers(model, params, x)) == ["backbone/hidden/0", "backbone/hidden/1", "head"]
    first = jax.tree.map(np.asarray, params["backbone"]["hidden"]["0"])
    expected = x @ first["kernel"] + first["bias"]
    close(got(x, model=model, params=params, layer="backbone/hidden/0").features, expected)


class Words(nn.Module):
    """Word vectors, and a head on the first."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Embed(30, 8, name="words")(x["ids"])[:, 0])


def text_data():
    mask = (np.arange(5)[None] < RNG.integers(1, 6, 7)[:, None]).astype(np.int32)
    ids = RNG.integers(1, 30, (7, 5)).astype(np.int32) * mask
    return TextData({"ids": ids, "mask": mask}, np.arange(7) % 2, ("bad", "good"), "reviews")


def test_tokens_of_texts_are_pooled_without_padding():
    data, model = text_data(), from_flax(Words())
    params = model.init(jax.random.key(0), data.x)
    vectors = np.asarray(params["backbone"]["words"]["embedding"])[data.x["ids"]]
    options = {"model": model, "params": params, "layer": "backbone/words"}
    kept = np.ma.masked_array(vectors, np.broadcast_to(data.x["mask"][..., None] == 0, vectors.shape))
    close(got(data, **options).features, kept.mean(1).filled(np.nan))
    close(got(data, pooling="max", **options).features, kept.max(1).filled(np.nan))
    close(got(data, pooling="cls", **options).features, vectors[:, 0])
    assert got(data, **options).classes == ("bad", "good")


@pytest.mark.slow
def test_the_last_block_of_a_text_encoder_pools_to_its_features():
    data, model = text_data(), bert("tiny", width=8, vocab=30, pool="mean")
    options = {"model": model, "params": model.init(jax.random.key(0), data.x)}
    close(got(data, **options).features, got(data, layer="**/block_01", **options).features)


class Pairs:
    """A source of a stream."""

    classes = ("a", "b", "c")

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


@pytest.mark.parametrize(
    "data",
    [
        Batch(X, Y),
        Dataset(X, Y, ("a", "b", "c")),
        stream(Pairs()),
        (X.astype(np.float64), list(Y)),
        (jnp.asarray(X), np.array(list("abc"))[Y]),
    ],
    ids=["batch", "dataset", "stream", "lists", "names"],
)
def test_data_of_every_form(data):
    expected, found = got((X, Y)), got(data)
    close(found.features, expected.features)
    close(found.logits, expected.logits)
    assert found.labels.tolist() == Y.tolist()
    assert found.classes in ((), ("a", "b", "c"))


@pytest.mark.parametrize("data", [X, (X, None), stream([(x, 0) for x in X]), stream(list(X), y=None)])
def test_labels_may_be_missing(data):
    assert got(data).features.shape == (21, 4)


@pytest.mark.parametrize("batch_size", [1, 16, 21, 1000])
def test_the_batch_size_and_the_devices_do_not_matter(batch_size):
    """There are eight devices; by hand there is one."""
    close(got(batch_size=batch_size).features, by_hand()[1]["again"].mean((1, 2)))


def test_every_device_works():
    seen = set()

    def apply(params, x, **options):
        jax.debug.inspect_array_sharding(x, callback=lambda sharding: seen.add(len(sharding.device_set)))
        return Output(x, x)

    got(np.ones((32, 3), np.float32), model=Model(None, apply), params={})
    assert seen == {8}


def test_parameters_that_lie_on_several_devices_stay_there():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("model",))
    spread = jax.device_put(PARAMS, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    close(got(params=spread).features, got().features)


def test_features_of_half_precision_are_kept_as_float32():
    model = Model(None, lambda params, x, **_: Output(x.astype(jnp.bfloat16), x.astype(jnp.bfloat16)))
    found = got(np.ones((3, 2), np.float32), model=model, params={})
    assert (found.features.dtype, found.logits.dtype) == (np.float32, np.float32)


def test_progress_is_shown(capsys):
    got(progress="my features")
    assert "my features: step 3 of 3" in capsys.readouterr().err
    got()
    assert capsys.readouterr().err == ""


HAND_MADE = Model(None, lambda params, x, **_: Output(x, x), name="mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "backbone/frist"}, "from_flax|Net has no layer 'backbone/frist'; the nearest are 'backbone/first'"),
        ({"layer": "backbone/*"}, "is 2 layers of Net: 'backbone/first', 'backbone/again'; name one"),
        ({"layer": "a", "model": HAND_MADE}, "mine has no layer 'a'.*this model is none"),
        ({"layer": "backbone/first", "pooling": "cls"}, r"'cls' takes the first token.*\[6, 6, 4\]"),
        ({"pooling": "mean"}, "nothing to pool"),
        ({"pooling": "sum"}, "pooling='sum'; expected one of 'mean', 'max', 'cls', 'flatten'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"data": X[:0]}, "one or more"),
        ({"data": (X, Y[:3])}, "x holds 21 examples and y 3 labels"),
        ({"data": {"a": X, "b": X[:2]}}, "first axis of every array"),
        ({"data": (np.array(["a"]), None)}, "x must be numbers"),
        ({"data": (X, 3)}, "y must be labels"),
        ({"data": X[..., :1]}, "Net with these parameters cannot take inputs"),
    ],
)
def test_bad_input_is_told(options, message):
    with pytest.raises(FeatureError, match=message):
        got(**options)


def test_a_layer_without_an_axis_of_examples_is_told():
    class Rows(nn.Module):
        @nn.compact
        def __call__(self, x):
            rows = nn.Dense(4, name="rows")(x.reshape(-1, 2))
            return nn.Dense(3)(rows.reshape(len(x), -1))

    model = from_flax(Rows())
    with pytest.raises(FeatureError, match=r"'backbone/rows' gives \[288, 4\] for 8 examples"):
        got(model=model, params=model.init(jax.random.key(0), X), layer="backbone/rows")
