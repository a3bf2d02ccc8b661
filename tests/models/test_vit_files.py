"""Vision transformers of transformers, timm and Flax, loaded and written by tljax alone.

The golden file holds their outputs; their weights are made from their names. See tests/golden/make_vit_models.py.
"""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import GOLDEN, script, write_case

import tljax as tl
from tljax.checkpoints import open_weights, read_weights
from tljax.checkpoints.convention import match_convention
from tljax.checkpoints.keymap import KeymapError
from tljax.models import ModelError, vit
from tljax.models.recognition import recognise
from tljax.models.vit_files import from_timm, from_transformers
from tljax.models.vit_positions import position_rules, prefixes
from tljax.tree import count, from_named, leaf_names, map_named, named_leaves, position_grid, select
from tljax.tree.report import GraftError

KEY = jax.random.key(0)


STORED = np.load(GOLDEN / "vit_models.npz")
CASES = list(dict.fromkeys(name.split("/")[0] for name in STORED))
TRANSFORMERS = [case for case in CASES if case.startswith("transformers")]
WITH_HEAD = [case for case in TRANSFORMERS if "base" not in case and ("clip" not in case or "classifier" in case)]
CLASSES = 5
SLOW = [
    "transformers vit base",
    "transformers deit",
    "transformers dinov2 base",
    "transformers dinov2 giant base",
    "transformers clip",
    "timm vit",
    "timm dinov2",
]
OPTIONS = {
    "transformers vit base": {"pre_logits": True},
    **{case: {"heads": 2} for case in CASES if case.startswith("timm")},
}
"""What these files do not tell."""


def written(case, folder):
    return write_case(STORED, case, folder)


def wrong(a, b):
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


def everyday(cases):
    """The parameters of a test, those marked slow whose like is among the others."""
    return [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in cases]


@pytest.mark.one_in(7)
@pytest.mark.parametrize("case", everyday(CASES))
def test_same_outputs_and_back_again(case, tmp_path):
    flat, about = written(case, tmp_path)
    model, params, report, _, convention = tl.load_pretrained(tmp_path, **OPTIONS.get(case, {}))
    assert report.recognised.startswith("vit(")
    assert convention.split("-")[0] == case.split()[0]
    assert report.graft.leaves["resized"] == 0
    headless = STORED[f"{case}/logits"].shape[1] != CLASSES
    assert report.graft.names("reinitialised") == ["head/bias", "head/kernel"] * headless
    assert not report.ignored
    grouped = [name for group in model.groups for name in select(group).names(params)]
    assert sorted(grouped) == sorted(leaf_names(params))

    x = script("made_weights").uniform("images", (2, *about["images"]))
    out, hidden = with_hidden_states(model, params, x, "clip" in case and not case.startswith("timm"))
    assert wrong(hidden, STORED[f"{case}/hidden"]) <= 1e-5
    theirs = STORED[f"{case}/logits"]
    # Without a head, theirs is the class token; our features of DINOv2 have the mean besides.
    assert wrong(out.features[:, : theirs.shape[1]] if headless else out.logits, theirs) <= 1e-5

    again = tmp_path / "again.safetensors"
    body = {"backbone": params["backbone"]} if headless else params
    tl.export(model, body, again, format="safetensors", convention=convention)
    assert_same_leaves(read_weights(again).leaves, flat)
    back = tl.load_pretrained(again, model, example=x).params["backbone"]
    jax.tree.map(np.testing.assert_array_equal, back, params["backbone"])


def with_hidden_states(model, params, x, clip):
    """What the model gives, and its last hidden states `[B, S, D]`: in CLIP those before the last norm."""
    depth = sum("/block_" in group for group in model.groups)
    wanted = f"block_{depth - 1:02d}" if clip else "norm"
    seen = []

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path == ("backbone", wanted):
            seen.append(out)
        return out

    def both(params, x):
        with nn.intercept_methods(note):
            out = model.apply(params, x)
        return out, seen[-1]

    return jax.jit(both)(params, x)


def assert_same_leaves(leaves, flat):
    assert set(leaves) == set(flat)
    for name, leaf in flat.items():
        np.testing.assert_array_equal(leaves[name], leaf, err_msg=name, strict=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", CASES)
def test_names_alone_tell_the_architecture_too(case, tmp_path):
    flat, about = written(case, tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)
    file = open_weights(tmp_path)
    found = recognise(file, {"heads": 2} | OPTIONS.get(case, {}))
    assert found.how.startswith("vit(")
    assert found.how.endswith("recognised by names and shapes")
    if "qkv_bias" not in found.how and case != "transformers vit":  # which has other sides than a square's
        assert found.example.shape == (1, *about["images"])
    model = found.build(CLASSES)
    example = jax.ShapeDtypeStruct((1, *about["images"]), np.float32)
    shapes = named_leaves(jax.eval_shape(model.init, KEY, example))
    match = match_convention(model.keymaps, shapes, file.specs)
    leaves = match.binding.import_(flat).leaves
    assert not match.binding.useless(flat)
    assert {n: leaf.shape for n, leaf in leaves.items()} == {n: shapes[n].shape for n in leaves}
    assert {name for name in shapes if name not in leaves} <= {"head/kernel", "head/bias"}


@pytest.mark.parametrize("case", everyday(CASES))
@pytest.mark.filterwarnings("ignore")
def test_the_script_gives_what_is_stored(case):
    pytest.importorskip("torch")
    pytest.importorskip(case.split()[0])
    about, logits, hidden = script("make_vit_models").result(case)
    known = json.loads(str(STORED[f"{case}/about"]))
    assert json.loads(about)["shapes"] == known["shapes"]
    np.testing.assert_allclose(logits, STORED[f"{case}/logits"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(hidden, STORED[f"{case}/hidden"], rtol=0, atol=5e-6)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", everyday(TRANSFORMERS))
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_what_was_exported(case, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    flat, _ = written(case, tmp_path)
    model, params, *_, config, convention = tl.load_pretrained(tmp_path, **OPTIONS.get(case, {}))
    if case == "transformers vit":
        with pytest.raises(KeymapError, match=r"6 patches are no square grid; write config=.*'image_size'"):
            tl.export(model, params, tmp_path / "out")
    named = {"convention": convention} if case not in WITH_HEAD else {}
    tl.export(model, params, tmp_path / "out", config=config, **named)
    like = script("make_vit_models").CASES[case][0]()
    for name in ("out", "again"):
        theirs, info = type(like).from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(info.values()), info
        theirs.save_pretrained(tmp_path / "again")
        assert_same_leaves(read_weights(tmp_path / "again").leaves, flat)
    ours, other = like.config.to_dict(), theirs.config.to_dict()
    if "vision_config" in ours:
        ours, other = ours["vision_config"], other["vision_config"]
    differ = {key for key in ours if ours[key] != other.get(key)}
    assert differ <= {"_name_or_path", "architectures", "dtype"}

    memory = tmp_path / "memory.pt"  # with the names that the model has in memory, which are others in transformers 5
    torch.save(theirs.state_dict(), memory)
    back = tl.load_pretrained(memory, model, example=jax.ShapeDtypeStruct((1, *images_of(case)), np.float32))
    jax.tree.map(np.testing.assert_array_equal, back.params["backbone"], params["backbone"])


def images_of(case):
    return json.loads(str(STORED[f"{case}/about"]))["images"]


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_names_of_version_4(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    flat, _ = written("transformers clip", tmp_path)
    loaded = tl.load_pretrained(tmp_path)
    tl.export(loaded.model, loaded.params, tmp_path / "out", convention="transformers")
    assert set(read_weights(tmp_path / "out").leaves) == {f"vision_model.{name}" for name in flat}
    like = script("make_vit_models").CASES["transformers clip"][0]()
    theirs, info = type(like).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert_same_leaves({name: leaf.numpy() for name, leaf in theirs.state_dict().items()}, flat)


@pytest.mark.one_in(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["transformers deit", "transformers dinov2", "transformers clip"])
def test_positions_of_another_grid_are_those_of_transformers(case, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    written(case, tmp_path)
    model, params, report, *_ = tl.load_pretrained(tmp_path, example=np.zeros((1, 20, 20, 3), np.float32))
    assert report.graft.names("resized") == ["backbone/embed/position"]
    assert "position_grid (huggingface, 3x3 to 5x5)" in str(report)
    theirs = type(script("make_vit_models").CASES[case][0]()).from_pretrained(tmp_path)
    inner = getattr(theirs, theirs.base_model_prefix, theirs)
    with torch.no_grad():
        table = inner.embeddings.interpolate_pos_encoding(
            torch.zeros(1, params["backbone"]["embed"]["position"].shape[1], 16), 20, 20
        )
    assert wrong(params["backbone"]["embed"]["position"], table) <= 1e-6
    assert jax.eval_shape(model.apply, params, np.zeros((1, 20, 20, 3), np.float32)).features.shape[0] == 1


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["transformers vit", "transformers dinov2"])
@pytest.mark.parametrize("sides", [(8, 20), (16, 12)])
def test_images_that_are_not_square(case, sides, tmp_path):
    """A square table for oblong images as transformers interpolates it; an oblong one from the grid in config.json."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    flat, _ = written(case, tmp_path)
    x = script("made_weights").uniform("images", (2, *sides, 3))
    model, params, report, *_ = tl.load_pretrained(tmp_path, example=x)
    h, w = sides[0] // 4, sides[1] // 4
    old = (2, 3) if case == "transformers vit" else (3, 3)
    assert f"position_grid (huggingface, {old[0]}x{old[1]} to {h}x{w})" in str(report)
    if old == (3, 3):
        theirs = type(script("make_vit_models").CASES[case][0]()).from_pretrained(tmp_path)
        with torch.no_grad():
            logits = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).logits
        assert wrong(jax.jit(model.apply)(params, x).logits, logits) <= 1e-5
        return
    table = flat["vit.embeddings.position_embeddings"]
    cells = torch.from_numpy(table[:, 1:]).reshape(1, *old, -1).permute(0, 3, 1, 2)
    expected = (
        torch.nn.functional.interpolate(cells, size=(h, w), mode="bicubic").permute(0, 2, 3, 1).reshape(1, h * w, -1)
    )
    found = params["backbone"]["embed"]["position"]
    assert wrong(found[:, 1:], expected) <= 1e-6
    np.testing.assert_array_equal(found[:, :1], table[:, :1])


def test_as_many_patches_in_another_grid_are_resized_too(tmp_path):
    flat, _ = written("transformers vit", tmp_path)
    table = flat["vit.embeddings.position_embeddings"]
    same = tl.load_pretrained(tmp_path, example=np.zeros((1, 8, 12, 3), np.float32))
    np.testing.assert_array_equal(same.params["backbone"]["embed"]["position"], table)
    assert not same.report.notes
    turned = tl.load_pretrained(tmp_path, example=np.zeros((1, 12, 8, 3), np.float32))
    rule = position_grid((2, 3), (3, 2), prefix_tokens=1, method="huggingface")
    found = turned.params["backbone"]["embed"]["position"]
    np.testing.assert_array_equal(found, rule("position", table, table))
    assert turned.report.notes == (
        "backbone/embed/position is [1, 7, 16] -> [1, 7, 16] by position_grid (huggingface, 2x3 to 3x2)",
    )


def test_a_bare_file_of_oblong_images_wants_to_be_told_their_size(tmp_path):
    flat, _ = written("transformers vit", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"shapes of inputs cannot be told from the file; write .*example="):
        tl.load_pretrained(tmp_path, heads=2)
    example = np.zeros((1, 8, 12, 3), np.float32)
    loaded = tl.load_pretrained(tmp_path, heads=2, example=example)
    np.testing.assert_array_equal(
        loaded.params["backbone"]["embed"]["position"], flat["vit.embeddings.position_embeddings"]
    )
    with pytest.raises(GraftError, match=r"cannot be told; write resize=.*position_grid\(\(height, width\)"):
        tl.load_pretrained(tmp_path, heads=2, example=np.zeros((1, 8, 20, 3), np.float32))
    named = {"**/embed/position": position_grid((2, 3), (2, 5), prefix_tokens=1)}
    table = tl.load_pretrained(tmp_path, heads=2, example=np.zeros((1, 8, 20, 3), np.float32), resize=named).params
    assert table["backbone"]["embed"]["position"].shape == (1, 11, 16)


class FlaxMLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1], name="Dense_1")(nn.gelu(nn.Dense(24, name="Dense_0")(x)))


class FlaxBlock(nn.Module):
    numbers: tuple

    @nn.compact
    def __call__(self, x):
        norm_1, attention, norm_2, mlp = self.numbers
        y = nn.LayerNorm(name=f"LayerNorm_{norm_1}")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name=f"MultiHeadDotProductAttention_{attention}")(y, y)
        return x + FlaxMLP(name=f"MlpBlock_{mlp}")(nn.LayerNorm(name=f"LayerNorm_{norm_2}")(x))


class Table(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("pos_embedding", nn.initializers.normal(), (1, *x.shape[1:]))


class FlaxEncoder(nn.Module):
    old: bool

    @nn.compact
    def __call__(self, x):
        x = Table(name="posembed_input")(x) if self.old else x
        for i in range(2):
            x = FlaxBlock((0, 1, 2, 3) if self.old else (0, 0, 1, 0), name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class FlaxViT(nn.Module):
    """The old one is Google's first, whose class token has a position; big_vision's has none."""

    old: bool
    pool: str

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (4, 4), (4, 4), "VALID", name="embedding")(x)
        x = x.reshape(x.shape[0], -1, 16)
        x = x if self.old else x + self.param("pos_embedding", nn.initializers.normal(), (1, *x.shape[1:]))
        if self.pool == "cls":
            token = self.param("cls", nn.initializers.normal(), (1, 1, 16))
            x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = FlaxEncoder(self.old, name="Transformer")(x)
        x = x[:, 0] if self.pool == "cls" else x.mean(1)
        return nn.Dense(CLASSES, name="head")(jnp.tanh(nn.Dense(16, name="pre_logits")(x)) if self.old else x)


@pytest.mark.slow
@pytest.mark.parametrize(("old", "pool"), [(True, "cls"), (False, "cls"), (False, "mean")])
def test_flax_files(old, pool, tmp_path):
    x = script("made_weights").uniform("images", (2, 12, 12, 3))
    theirs = FlaxViT(old, pool)
    variables = map_named(
        lambda name, leaf: script("made_weights").made_weight(name + "weight", leaf.shape),
        jax.eval_shape(theirs.init, KEY, x),
    )
    flat = named_leaves(variables if not old else variables["params"])
    np.savez(tmp_path / "vit.npz", **flat)
    model, params, report, _, convention = tl.load_pretrained(tmp_path / "vit.npz")
    assert convention == ("vit_jax" if old else "big_vision")
    assert not report.graft.names("reinitialised")
    assert wrong(jax.jit(model.apply)(params, x).logits, jax.jit(theirs.apply)(variables, x)) <= 1e-5
    assert_same_leaves(model.keymaps[convention].export(params), named_leaves(variables["params"]))
    resized = tl.load_pretrained(tmp_path / "vit.npz", example=np.zeros((1, 20, 20, 3), np.float32)).report
    assert "position_grid (big_vision, 3x3 to 5x5)" in str(resized)


PUBLISHED = {
    "vit b16": (86_567_656, {"model_type": "vit"}),
    "vit b32": (88_224_232, {"model_type": "vit", "patch_size": 32}),
    "deit tiny": (
        5_910_800,
        {"model_type": "deit", "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    ),
    "dinov2 small": (
        22_056_576,
        {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518},
    ),
    "dinov2 small registers": (
        22_058_112,
        {
            "model_type": "dinov2_with_registers",
            "hidden_size": 384,
            "num_attention_heads": 6,
            "patch_size": 14,
            "image_size": 518,
        },
    ),
    "dinov2 giant": (
        1_136_480_768,
        {
            "model_type": "dinov2",
            "hidden_size": 1536,
            "num_hidden_layers": 40,
            "num_attention_heads": 24,
            "use_swiglu_ffn": True,
            "patch_size": 14,
            "image_size": 518,
        },
    ),
    "clip b32": (87_456_000, {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]}),
    "clip b32 projected": (87_849_216, {"model_type": "clip", "architectures": ["CLIPModel"]}),
}
"""Parameters of models whose config.json says this and defaults besides; of ViT and DeiT with 1000 classes."""


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    published, config = PUBLISHED[name]
    found = from_transformers(config)
    model = vit(num_classes=1000, **found.options)
    params = jax.eval_shape(model.init, KEY, found.example)
    assert model.name.startswith(name.split()[0])
    assert count(params if name.startswith(("vit", "deit")) else params["backbone"]) == published


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("vit_base_patch16_224", {}),
        ("deit_small_distilled_patch16_384", {"distillation": True, "pool": "cls+distillation"}),
        ("vit_large_patch14_clip_quickgelu_336", {"pre_norm": True, "act": "quick_gelu", "epsilon": 1e-5}),
    ],
)
def test_names_of_timm(architecture, options):
    found = from_timm({"architecture": architecture, "num_classes": 3})
    assert {name: value for name, value in found.options.items() if name != "variant"} == options
    assert found.num_classes == 3
    model = vit(num_classes=3, **found.options)
    shapes = named_leaves(jax.eval_shape(model.init, KEY, found.example))
    (position,) = model.keymaps["timm"].bind(["backbone/embed/position"]).expected
    name = model.keymaps["timm"].config["architecture"]
    assert name({position: shapes["backbone/embed/position"]}, {}) == architecture
    assert from_timm({"architecture": "vit_base_patch16_siglip_224"}) is None
    assert from_timm({}) is None


def test_timm_of_dinov2_has_positions_for_patches_only_beside_registers():
    found = from_timm({"architecture": "vit_small_patch14_reg4_dinov2.lvd142m", "num_classes": 0})
    params = jax.eval_shape(vit(**found.options).init, KEY, found.example)
    assert params["backbone"]["embed"]["position"].shape == (1, 37 * 37, 384)
    assert params["backbone"]["embed"]["registers"].shape == (1, 4, 384)
    assert "mask" not in params["backbone"]["embed"]


@pytest.mark.slow
def test_positions_of_a_timm_file_are_resized_as_in_timm(tmp_path):
    flat, _ = written("timm deit distilled", tmp_path)
    x = np.zeros((1, 20, 20, 3), np.float32)
    loaded = tl.load_pretrained(tmp_path, heads=2, example=x)
    table = loaded.params["backbone"]["embed"]["position"]
    rule = position_grid(3, 5, prefix_tokens=2, method="timm")
    np.testing.assert_array_equal(table, rule("position", flat["pos_embed"], np.zeros((1, 27, 16), np.float32)))
    assert "position_grid (timm, 3x3 to 5x5)" in str(loaded.report)
    oblong = tl.load_pretrained(tmp_path, heads=2, example=np.zeros((1, 8, 20, 3), np.float32))
    rule = position_grid(3, (2, 5), prefix_tokens=2, method="timm")
    expected = rule("position", flat["pos_embed"], np.zeros((1, 12, 16), np.float32))
    np.testing.assert_array_equal(oblong.params["backbone"]["embed"]["position"], expected)


def test_square_grids_are_told_by_the_rows():
    images = [np.zeros((1, side, side, 3)) for side in (12, 8)]
    rule = position_rules("huggingface")({"patch": 4}, *images)["backbone/embed/position"]
    for tokens in (0, 1, 2):
        assert prefixes(9 + tokens) == [tokens]
        old = np.arange(9 + tokens, dtype=np.float32)[None, :, None]
        new = rule("position", old, np.zeros((1, 4 + tokens, 1), np.float32))
        np.testing.assert_array_equal(new[:, :tokens], old[:, :tokens])
        assert new.shape == (1, 4 + tokens, 1)


def test_the_other_tower_of_a_clip_file_is_left_out(tmp_path):
    flat, about = written("transformers clip projected", tmp_path)
    other = {"text_model.final_layer_norm.weight": np.ones(4, np.float32), "logit_scale": np.float32(2.6)}
    other["vision_model.embeddings.position_ids"] = np.arange(10)[None]
    tl.save_weights(flat | other, tmp_path / "model.safetensors", separator=".")
    config = {
        "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 7, "vision_config": about["config"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = tl.load_pretrained(tmp_path)
    assert set(loaded.report.ignored) == set(other)
    assert loaded.params["backbone"]["projection"]["kernel"].shape == (16, 7)
    with pytest.raises(KeymapError, match="transformers has no place for the head"):
        tl.export(loaded.model, loaded.params, tmp_path / "out")
    (tmp_path / "config.json").unlink()
    assert "projection=7" in tl.load_pretrained(tmp_path, heads=2).report.recognised


def test_files_that_do_not_tell_all(tmp_path):
    written("timm vit", tmp_path)
    with pytest.raises(ModelError, match=r"heads=0; names and shapes do not tell .* of width 16: write heads="):
        tl.load_pretrained(tmp_path)
    loaded = tl.load_pretrained(tmp_path, heads=2, num_classes=3, example=np.zeros((1, 12, 12, 1), np.float32))
    assert loaded.report.graft.names("resized") == ["backbone/embed/patch/kernel"]
    assert loaded.params["head"]["kernel"].shape == (16, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "vit", "patch_size": [16, 8]}, r"patch_size is \[16, 8\]; vit has square patches"),
    ],
)
def test_what_we_lack_is_told(config, message):
    with pytest.raises(ModelError, match=message):
        from_transformers(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "cls+distillation"}, "needs distillation=True"),
        ({"pool": "mean", "registers": 4}, "pool='mean' has no tokens besides the patches"),
        ({"heads": 0}, "heads=0"),
        ({"act": "gelu_10"}, "activation='gelu_10'; expected one of"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ModelError, match=message):
        jax.eval_shape(vit("ti", **options).init, KEY, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.slow
def test_two_heads_and_all_tokens_learn():
    model = vit("ti", 3, width=8, heads=2, depth=1, distillation=True, pool="cls+distillation", registers=2)
    x = script("made_weights").uniform("images", (2, 8, 8, 3))
    shapes = named_leaves(jax.eval_shape(model.init, KEY, x))
    made = {name: script("made_weights").made_weight(name, leaf.shape) for name, leaf in shapes.items()}
    params = from_named({name: jnp.asarray(leaf) for name, leaf in made.items()})
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(model.apply(params, x).logits ** 2)))(params)
    flat = named_leaves(gradient)
    still = [name for name, leaf in flat.items() if float(jnp.max(jnp.abs(leaf))) == 0]
    assert not still
    assert set(model.keymaps) == set()
