"""ImageNet ResNet, wide ResNet, MobileNetV1 and ConvNeXt: any image, training, options, errors.

That they compute what torch's do is in test_pretrained_conv.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.models import ModelError, convnext, imagenet_resnet, mobilenet_v1, wide_resnet
from tljax.models.family import family
from tljax.tree import leaf_names, map_named, named_leaves, select
from tljax.types import is_state

KEY = jax.random.key(0)
TINY = {
    "basic": lambda **k: imagenet_resnet((1, 2), 5, block="basic", widths=(4, 8), stem=4, **k),
    "bottleneck": lambda **k: imagenet_resnet((1, 2), 5, widths=(8, 16), stem=4, **k),
    "wide": lambda **k: wide_resnet(10, 5, widen=1, **k),
    "mobilenet": lambda **k: mobilenet_v1(0.125, 5, min_channels=4, **k),
    "convnext": lambda **k: convnext("tiny", 5, depths=(1, 2), widths=(4, 8), **k),
}
FEATURES = {"basic": 8, "bottleneck": 16, "wide": 64, "mobilenet": 128, "convnext": 8}


def made(model, x):
    """Parameters of which every leaf is different, without compiling `init`."""
    rng = np.random.default_rng(0)

    def value(name, leaf):
        v = rng.normal(size=leaf.shape) * (0.3 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5)
        return jnp.asarray(np.abs(v) + 0.5 if name.endswith(("scale", "var")) else v, jnp.float32)

    return map_named(value, jax.eval_shape(model.init, KEY, x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "shape", [(3, 33, 40, 1), *(pytest.param(s, marks=pytest.mark.slow) for s in ((2, 32, 32), (2, 35, 18, 4)))]
)
@pytest.mark.parametrize("name", TINY)
def test_any_image(name, shape):
    model = TINY[name]()
    params = jax.eval_shape(model.init, KEY, jnp.zeros(shape))
    out = jax.eval_shape(lambda p, x: model.apply(p, x, train=True), params, jnp.zeros(shape))
    assert (out.logits.shape, out.features.shape) == ((shape[0], 5), (shape[0], FEATURES[name]))
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))
    assert len(grouped) == len(set(grouped))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["basic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("wide", "mobilenet"))])
def test_training_updates_statistics_and_frozen_ones_stay(name):
    model = TINY[name]()
    x = jax.random.normal(KEY, (4, 16, 16, 3))
    params = made(model, x)
    statistics = [leaf for leaf in leaf_names(params) if is_state(leaf)]
    frozen = {leaf for leaf in statistics if "stem" in leaf or "backbone/norm" in leaf}

    @jax.jit
    def step(params):
        def loss(params):
            out = model.apply(params, x, train=True, frozen=frozen)
            return jnp.mean(out.logits**2), out.stats

        return jax.value_and_grad(loss, has_aux=True)(params)

    (value, stats), grads = step(params)
    assert np.isfinite(value)
    old, new = named_leaves(params), named_leaves(stats)
    assert sorted(new) == sorted(statistics)
    assert frozen
    assert {leaf for leaf in statistics if np.array_equal(old[leaf], new[leaf])} == frozen
    slopes = named_leaves(grads)
    assert all(np.any(slopes[leaf] != 0) for leaf in slopes if leaf.endswith("kernel"))


@pytest.mark.slow
def test_stochastic_depth_drops_whole_branches():
    model = TINY["convnext"](drop_path=0.5, layer_scale=1.0)
    x = jax.random.normal(KEY, (16, 8, 8, 3))
    params = made(model, x)
    apply = jax.jit(lambda key: model.apply(params, x, train=True, key=key).features)
    one, two = apply(jax.random.key(1)), apply(jax.random.key(2))
    still = jax.jit(lambda: model.apply(params, x).features)()
    assert not np.allclose(one, two)
    # a block either keeps its branch, scaled by 1 / (1 - rate), or is the identity: of the two blocks with a rate,
    # 0.25 and 0.5, each example of the batch shows one of four results
    some = np.concatenate([np.asarray(apply(jax.random.key(i)))[:1] for i in range(40)])
    assert len(np.unique(some.round(4), axis=0)) <= 4
    assert np.isfinite(still).all()
    with pytest.raises(ModelError, match="give apply a key"):
        model.apply(params, x, train=True)


def test_dropout_reaches_the_models():
    for model in (TINY["wide"](dropout=0.5), TINY["mobilenet"](dropout=0.5)):
        params = jax.eval_shape(model.init, KEY, jnp.zeros((2, 8, 8, 3)))
        with pytest.raises(ModelError, match="give apply a key"):
            jax.eval_shape(lambda p, model=model: model.apply(p, jnp.zeros((2, 8, 8, 3)), train=True), params)


@pytest.mark.slow
def test_where_a_bottleneck_has_its_stride():
    x = jax.random.normal(KEY, (1, 16, 16, 3))
    late, early = TINY["bottleneck"](), TINY["bottleneck"](stride_first=True)
    params = made(late, x)  # the leaves are the same, the function is another
    assert not np.allclose(jax.jit(late.apply)(params, x).logits, jax.jit(early.apply)(params, x).logits)
    assert late.keymaps["transformers"].config["downsample_in_bottleneck"] is False
    assert early.keymaps["transformers"].config["downsample_in_bottleneck"] is True


def test_groups_go_from_stem_to_head():
    assert len(imagenet_resnet(50).groups) == 1 + 16 + 1
    assert imagenet_resnet(50).groups[4] == "backbone/stage_2/block_00/**"
    assert mobilenet_v1().groups[-2] == "backbone/block_12/**"
    names = convnext().groups
    assert names[:5] == (
        "backbone/stem/**",
        *(f"backbone/stage_1/block_0{i}/**" for i in range(3)),
        "backbone/stage_2/downsample/**",
    )
    assert names[-2:] == ("backbone/norm/**", "head/**")


def test_a_model_transformers_lacks_has_no_names_of_it():
    assert set(mobilenet_v1(act="leaky_relu_0.1").keymaps) == {"torch", "timm"}
    assert "timm" not in imagenet_resnet((1, 1)).keymaps
    assert imagenet_resnet(50, num_classes=3).keymaps["timm"].config == {"architecture": "resnet50", "num_classes": 3}


@pytest.mark.parametrize(
    ("name", "architecture", "options"),
    [
        ("imagenet_resnet", "resnet50", {"depth": 50}),
        ("convnext", "convnext_base", {"variant": "base"}),
        ("mobilenet_v1", "mobilenetv1_125", {"width": 1.25, "act": "relu6", "padding": "even", "epsilon": 1e-5}),
    ],
)
def test_configurations_of_timm(name, architecture, options):
    config = {"architecture": architecture, "num_classes": 3, "pretrained_cfg": {"input_size": [1, 288, 256]}}
    found = family(name).from_config(config)
    assert (found.options, found.num_classes, found.example.shape) == (options, 3, (1, 288, 256, 1))
    keymap = family(name).build(num_classes=3, **options).keymaps["timm"]
    assert keymap.config == {"architecture": architecture, "num_classes": 3}
    assert family(name).from_config(config | {"architecture": f"{architecture}d"}) is None
    with pytest.raises(ModelError, match="with model_args"):
        family(name).from_config(config | {"model_args": {"act_layer": "silu"}})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: imagenet_resnet(20), "depth=20; expected 18, 34, 50, 101, 152, or blocks by stage"),
        (lambda: imagenet_resnet("resnet18"), "depth=resnet18; expected 18"),
        (lambda: imagenet_resnet((1, 1), block="plain"), "block='plain'; expected 'basic' or 'bottleneck'"),
        (lambda: imagenet_resnet((1, 1), widths=(4,)), "1 widths for 2 stages"),
        (lambda: imagenet_resnet(act="swoosh"), "activation='swoosh'"),
        (lambda: wide_resnet(20), "depth=20; expected 6n"),
        (lambda: mobilenet_v1(padding="valid"), "padding='valid'; expected 'same'"),
        (lambda: convnext("huge"), "variant='huge'; expected 'tiny'"),
        (lambda: convnext(depths=(1, 2)), "2 depths and 4 widths"),
        (lambda: convnext().init(KEY, np.zeros((1, 16, 40, 3))), "images of 16x40; expected 32 pixels or more"),
    ],
)
def test_errors_name_the_thing(build, message):
    with pytest.raises(ModelError, match=message):
        build()
