"""Every family of the catalogue: factored equals merged, with all kinds of adapters mixed, in training and not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equality import assert_equal, doubled, stirred

import tljax as tl
from tljax.peft import dora, full, ia3, join, lora, olora, pissa, vera
from tljax.tree import named_leaves

models = tl.models
IMAGES = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
TEXT = {"ids": jax.ShapeDtypeStruct((3, 7), jnp.int32), "mask": jax.ShapeDtypeStruct((3, 7), jnp.int32)}
FAMILIES = {
    "mlp": (models.mlp((9, 8), 3, norm="batch", dropout=0.1), jax.ShapeDtypeStruct((4, 6), jnp.float32)),
    "lenet": (
        models.lenet(3, channels=(4, 6), hidden=10, dropout=0.1),
        jax.ShapeDtypeStruct((2, 12, 12, 1), "float32"),
    ),
    "resnet": (models.resnet(8, 3, width=4, shortcut="B"), IMAGES),
    "vit": (models.vit("ti", 3, width=16, depth=2, heads=2, dropout=0.1), IMAGES),
    "bert": (models.bert("tiny", 3, width=16, depth=1, heads=2, vocab=50, positions=12, pool="pooler"), TEXT),
}
MORE = {
    "wide resnet": (models.wide_resnet(10, 3, widen=1, dropout=0.1), IMAGES),
    "imagenet resnet": (models.imagenet_resnet((1, 1), 3, block="bottleneck", widths=(16, 16), stem=8), IMAGES),
    "basic resnet": (models.imagenet_resnet((1, 1), 3, block="basic", widths=(4, 8), stem=8), IMAGES),
    "mobilenet": (models.mobilenet_v1(0.25, 3, min_channels=4), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)),
    "convnext": (
        models.convnext("tiny", 3, depths=(1, 1), widths=(8, 12), patch=2, layer_scale=0.5, drop_path=0.1), IMAGES
    ),
    "deit": (models.vit("ti", 3, width=16, depth=1, heads=2, distillation=True, pool="cls+distillation"), IMAGES),
    "dinov2": (
        models.vit("ti", 3, width=16, depth=1, heads=2, layer_scale=1.0, mask_token=True, registers=2, pool="cls+mean"),
        IMAGES,
    ),
    "clip": (
        models.vit("ti", 3, width=16, depth=1, heads=2, pre_norm=True, act="quick_gelu", projection=8, qkv_bias=False),
        IMAGES,
    ),
    "roberta": (models.bert("tiny", 3, style="roberta", width=16, depth=1, heads=2, vocab=50, positions=12), TEXT),
    "distil": (models.bert("tiny", 3, style="distilbert", width=16, depth=1, heads=2, vocab=50, positions=12), TEXT),
}  # fmt: skip


def example(x: object) -> object:
    """A batch like the abstract `x`."""
    rng = np.random.default_rng(1)

    def one(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == jnp.int32:
            return jnp.asarray(rng.integers(1, 9, leaf.shape), jnp.int32)
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(one, x)


def mixed(params: object) -> dict:
    """All kinds, in turn on the matrices; full copies of norms and biases."""
    matrices = [n for n, leaf in named_leaves(params).items() if n.split("/")[-1] in ("kernel", "embedding")]
    whole = [n for n in named_leaves(params) if n.split("/")[-1] in ("scale", "bias") and "batch_stats" not in n]
    turns = [matrices[i::7] for i in range(7)]
    key = jax.random.key(3)

    def ranks(names: list[str]) -> dict[str, int]:
        return {name: 1 if "type/" in name else 2 for name in names}  # RoBERTa has one type

    making = (
        lambda names: lora(params, names, key=key, alpha=3.0, rank=ranks(names)),
        lambda names: dora(params, names, key=key, rank=ranks(names)),
        lambda names: ia3(params, names),
        lambda names: pissa(params, names, rank=1),
        lambda names: vera(params, names, key=key, rank=5),
        lambda names: ia3(params, (), names),
        lambda names: olora(params, names, rank=1, rslora=True),
    )
    made = join(*(make(names) for make, names in zip(making, turns) if names))
    return stirred(join(made, full(params, [n for n in whole if n not in made])), size=0.2)


def agree(family: tuple, precise: bool) -> None:
    """In float32 as in use; and in training, where normalisation by few examples magnifies rounding, in float64."""
    model, x = family
    params = jax.jit(model.init)(jax.random.key(0), example(x))
    adapters = mixed(params)
    if not precise:
        assert_equal(model.apply, params, adapters, example(x), train=False)
        return
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, adapters, x = jax.tree.map(doubled, (params, adapters, example(x)))
        options = {"train": True, "key": jax.random.key(5), "frozen": frozenset()}
        assert_equal(model.apply, params, adapters, x, tol=1e-9, **options)


@pytest.mark.slow
@pytest.mark.parametrize("precise", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, precise: bool) -> None:
    agree(FAMILIES[name], precise)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_families(name: str) -> None:
    """In training, but for the MobileNet, whose many layers compile for minutes there."""
    agree(MORE[name], precise=name != "mobilenet")
