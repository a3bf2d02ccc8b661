"""Which axes are inputs and outputs, told for the parameters of Flax and Equinox modules, and asked where it is not."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tljax.models import catalog
from tljax.peft import Layout, PeftError, lora
from tljax.peft.choose import sites
from tljax.peft.infer import infer
from tljax.tree import named_leaves


def layouts(params):
    shapes = {name: tuple(np.shape(leaf)) for name, leaf in named_leaves(params).items()}
    return {name: infer(name, shapes) for name in shapes}


def linen(module, *inputs):
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def test_attention_of_linen():
    found = layouts(linen(nn.MultiHeadDotProductAttention(2, qkv_features=8), jnp.ones((1, 5, 6))))
    assert [found[f"{name}/kernel"] for name in ("query", "key", "value")] == [Layout("dense", ins=1)] * 3
    assert found["out/kernel"] == Layout("dense", ins=2)
    assert found["query/bias"].kind == "vector"


@pytest.mark.parametrize("bias", [True, False])
def test_attention_without_biases(bias):
    """Without a bias the names alone must do; heads of the width of the model are no trap."""
    found = layouts(linen(nn.MultiHeadDotProductAttention(4, qkv_features=16, use_bias=bias), jnp.ones((1, 5, 4))))
    assert found["query/kernel"] == Layout("dense", ins=1)
    assert found["out/kernel"] == Layout("dense", ins=2)


@pytest.mark.parametrize(("window", "groups", "bias"), [((3,), 1, True), ((3, 3), 4, False), ((3, 3, 3), 1, True)])
def test_convolutions_of_linen(window, groups, bias):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(True)(nn.Conv(8, window, feature_group_count=groups, use_bias=bias)(x))

    found = layouts(linen(Net(), jnp.ones((1, *(5 for _ in window), 4))))
    assert found["Conv_0/kernel"] == Layout("conv", ins=len(window) + 1)


class Block(nn.Module):
    bias: bool

    @nn.compact
    def __call__(self, x, _):
        x = nn.LayerNorm(name="norm")(x)
        x = x + nn.MultiHeadDotProductAttention(2, use_bias=self.bias, name="attention")(x, x)
        return nn.Dense(6, use_bias=self.bias, name="dense")(x), None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [3, 6])
def test_scanned_blocks(bias, depth):
    """Six blocks of width six: the biases alone could be read two ways, the norms tell."""
    scanned = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=depth)
    found = layouts(linen(scanned(bias), jnp.ones((1, 5, 6)), None))
    assert found["dense/kernel"] == Layout("dense", stack=1, ins=1)
    assert found["attention/query/kernel"] == Layout("dense", stack=1, ins=1)
    assert found["attention/out/kernel"] == Layout("dense", stack=1, ins=2)
    assert found["norm/scale"].kind == "vector"


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.Conv(4, (3, 3), name="conv")(x), None

        x, _ = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)()(x, None)
        return nn.Embed(7, 4, name="table")(jnp.zeros((1, 2), jnp.int32)) + x[:, 0, :2]


def test_scanned_convolution_and_embedding():
    found = layouts(linen(Scanned(), jnp.ones((1, 5, 5, 4))))
    assert [v for k, v in found.items() if k.endswith("conv/kernel")] == [Layout("conv", stack=1, ins=3)]
    assert found["table/embedding"] == Layout("embedding")


@pytest.mark.slow
def test_equinox():
    key = jax.random.key(0)
    found = layouts(
        {
            "linear": eqx.nn.Linear(4, 6, key=key),
            "layers": jax.vmap(lambda k: eqx.nn.Linear(4, 6, key=k))(jax.random.split(key, 3)),
            "conv": eqx.nn.Conv2d(4, 6, 3, key=key),
            "conv1": eqx.nn.Conv1d(4, 6, 3, key=key),
            "embed": eqx.nn.Embedding(9, 5, key=key),
            "norm": eqx.nn.LayerNorm(6),
        }
    )
    assert found["linear/weight"] == Layout("dense", transposed=True)
    assert found["layers/weight"] == Layout("dense", stack=1, transposed=True)
    assert found["conv/weight"] == Layout("conv", ins=3, transposed=True)
    assert found["conv1/weight"] == Layout("conv", ins=2, transposed=True)
    assert found["embed/weight"] == Layout("embedding")
    assert found["norm/weight"].kind == found["linear/bias"].kind == "vector"


def test_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.conv = nnx.Linear(4, 6, rngs=rngs), nnx.Conv(4, 6, (3, 3), rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 4, 8, rngs=rngs, decode=False)

    found = layouts(nnx.state(Net(nnx.Rngs(0)), nnx.Param))
    assert found["linear/kernel"] == Layout()
    assert found["conv/kernel"] == Layout("conv", ins=3)
    assert found["attention/out/kernel"] == Layout("dense", ins=2)


@pytest.mark.parametrize("name", ["mobilenet-v1-0.25", "convnext-tiny", "vit-ti16", "lenet"])
def test_every_kernel_of_the_catalogue_ends_on_its_outputs(name):
    entry = catalog.CATALOG[name]
    params = jax.eval_shape(catalog.build(name, num_classes=5).init, jax.random.key(0), entry.example)
    for site in sites(params, "**/kernel", None):
        assert site.fan[1] == site.leaf.shape[-1], site.name
        assert site.layout.stack == 0


@pytest.mark.parametrize(
    "shapes",
    [
        {"mix/kernel": (12, 8, 16)},
        {"position": (1, 9, 16)},
        {"mix/kernel": (8, 8, 16), "mix/bias": (8, 16)},
        {"mix/weight": (12, 16, 8)},
    ],
)
def test_a_doubt_is_told_and_settled(shapes):
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    name = next(iter(params))
    with pytest.raises(PeftError, match=r"cannot be told from names and shapes.*layouts=\{"):
        lora(params, name, key=jax.random.key(0), rank=1)
    adapters = lora(params, name, key=jax.random.key(0), rank=1, layouts={name: Layout(stack=1)})
    assert adapters[name].a.shape == (shapes[name][0], shapes[name][1], 1)


def test_a_layout_that_does_not_fit():
    with pytest.raises(PeftError, match=r"needs more axes than 'w' \[3, 2\] has"):
        lora({"w": jnp.ones((3, 2))}, "w", key=jax.random.key(0), rank=1, layouts={"w": Layout(ins=2)})
