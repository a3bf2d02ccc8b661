"""Writes vit_models.npz: outputs of small vision transformers of transformers and timm.

python tests/golden/make_vit_models.py

Run by hand where torch, transformers and timm are installed. made_weights.py makes weights and inputs, so the file
holds names, shapes, configurations and outputs only.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_weights import made_weights, uniform  # noqa: E402

PATH = HERE / "vit_models.npz"
CLASSES = 5
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}


def from_transformers(model, config, nested=None, **options):
    """A model of transformers by the names of its classes."""
    import transformers

    sizes = {**SIZES, "image_size": 12, **options}
    if "Dinov2" not in config:
        sizes = {"intermediate_size": 24, **sizes}
    if nested:
        built = getattr(transformers, config)(**{nested: sizes}, num_labels=CLASSES)
    else:
        built = getattr(transformers, config)(num_labels=CLASSES, **sizes)
    return getattr(transformers, model)(built)


def from_timm(name, classes=CLASSES, **options):
    """A model of timm."""
    import timm

    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm.create_model(name, num_classes=classes, **{**sizes, **options})


CASES = {
    "transformers vit": (
        lambda: from_transformers("ViTForImageClassification", "ViTConfig", image_size=[8, 12], hidden_act="gelu"),
        (8, 12, 3),
    ),
    "transformers vit base": (lambda: from_transformers("ViTModel", "ViTConfig", qkv_bias=False), (12, 12, 3)),
    "transformers deit": (lambda: from_transformers("DeiTForImageClassification", "DeiTConfig"), (12, 12, 3)),
    "transformers deit distilled": (
        lambda: from_transformers("DeiTForImageClassificationWithTeacher", "DeiTConfig", num_channels=1),
        (12, 12, 1),
    ),
    "transformers dinov2": (
        lambda: from_transformers("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2),
        (12, 12, 3),
    ),
    "transformers dinov2 base": (lambda: from_transformers("Dinov2Model", "Dinov2Config"), (12, 12, 3)),
    "transformers dinov2 registers": (
        lambda: from_transformers(
            "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", num_register_tokens=3
        ),
        (12, 12, 3),
    ),
    "transformers dinov2 giant": (
        lambda: from_transformers("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=3, use_swiglu_ffn=True),
        (12, 12, 3),
    ),
    "transformers dinov2 giant base": (
        lambda: from_transformers(
            "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", num_register_tokens=2, use_swiglu_ffn=True
        ),
        (12, 12, 3),
    ),
    "transformers clip": (lambda: from_transformers("CLIPVisionModel", "CLIPVisionConfig"), (12, 12, 3)),
    "transformers clip projected": (
        lambda: from_transformers("CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=7),
        (12, 12, 3),
    ),
    "transformers clip classifier": (
        lambda: from_transformers("CLIPForImageClassification", "CLIPConfig", nested="vision_config"),
        (12, 12, 3),
    ),
    "timm vit": (lambda: from_timm("vit_tiny_patch16_224"), (12, 12, 3)),
    "timm deit distilled": (lambda: from_timm("deit_tiny_distilled_patch16_224"), (12, 12, 3)),
    "timm dinov2": (lambda: from_timm("vit_small_patch14_dinov2", classes=0), (12, 12, 3)),
    "timm dinov2 registers": (
        lambda: from_timm("vit_small_patch14_reg4_dinov2", classes=0),
        (12, 12, 3),
    ),
    "timm dinov2 giant": (
        lambda: from_timm("vit_giant_patch14_dinov2", classes=0, embed_dim=24),
        (12, 12, 3),
    ),
    "timm clip": (lambda: from_timm("vit_base_patch16_clip_quickgelu_224"), (12, 12, 3)),
}
"""A function that builds the model, and the shape of its images."""


def inputs(shape):
    """Two images `[2, H, W, C]`."""
    return uniform("images", (2, *shape))


def saved(model):
    """The names in the files of `model` and its weights."""
    import tempfile

    from safetensors.numpy import load_file

    if not hasattr(model, "config"):
        return {name: leaf.numpy() for name, leaf in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(pathlib.Path(folder) / "model.safetensors")


def outputs(model, images):
    """Logits, or what stands for them in a model without a head; the last hidden states."""
    import torch

    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        if not hasattr(model, "config"):
            return model(x).numpy(), model.forward_features(x).numpy()
        out = model(x)
        name = next(n for n in ("logits", "image_embeds", "pooler_output") if n in out)
        inner = getattr(model, "vision_model", getattr(model, model.base_model_prefix, model))
        return out[name].numpy(), inner(x).last_hidden_state.numpy()


def result(case):
    """What the model of `case` is, and what it makes of the images: JSON, logits, hidden states."""
    import torch

    shape = CASES[case][1]
    model = CASES[case][0]().eval()
    flat = saved(model)
    weights = made_weights({name: leaf.shape for name, leaf in flat.items()})
    if hasattr(model, "config"):  # through files, so that weights go by the names there
        import tempfile

        from safetensors.numpy import save_file

        with tempfile.TemporaryDirectory() as folder:
            save_file(weights, pathlib.Path(folder) / "model.safetensors", {"format": "pt"})
            model.config.save_pretrained(folder)
            model = type(model).from_pretrained(folder).eval()
    else:
        model.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in weights.items()})
    logits, hidden = outputs(model, inputs(shape))
    config = json.loads(model.config.to_json_string(use_diff=False)) if hasattr(model, "config") else None
    about = {"shapes": {name: leaf.shape for name, leaf in flat.items()}, "images": shape, "config": config}
    return json.dumps(about), logits, hidden


def main() -> None:
    arrays = {}
    for case in CASES:
        arrays[f"{case}/about"], arrays[f"{case}/logits"], arrays[f"{case}/hidden"] = result(case)
        print(f"{case}: |logits| up to {np.abs(arrays[f'{case}/logits']).max():.2f}")
    np.savez_compressed(PATH, **arrays)
    print(PATH, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
