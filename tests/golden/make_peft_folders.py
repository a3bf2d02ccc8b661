"""Writes peft_folders.npz: adapters of every kind by peft, on tiny models of transformers, and what they compute.

python tests/golden/make_peft_folders.py

Run by hand where torch, transformers and peft are installed. Weights, adapters and inputs are made from their names, so
the file holds names, shapes, configurations and outputs only.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_weights import made_weight, made_weights, uniform  # noqa: E402

PATH = HERE / "peft_folders.npz"
PREFIX = "base_model.model."
BERT = {
    "vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 16, "num_labels": 3,
}  # fmt: skip
VIT = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "image_size": 8,
    "patch_size": 4, "num_labels": 3,
}  # fmt: skip
RESNET = {
    "embedding_size": 6, "hidden_sizes": [12, 16], "depths": [1, 1], "layer_type": "bottleneck", "num_labels": 3,
}  # fmt: skip
CONVNEXT = {"hidden_sizes": [6, 8, 8, 8], "depths": [1, 1, 1, 1], "num_labels": 3}
BASES = {
    "bert": ("BertForSequenceClassification", "BertConfig", BERT),
    "bert base": ("BertModel", "BertConfig", BERT),
    "vit": ("ViTForImageClassification", "ViTConfig", VIT),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", RESNET),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", CONVNEXT),
}
"""The class, its configuration's class, and the configuration."""

ATTENTION = ["query", "value"]
CASES = {
    "bert lora": ("bert", "Lora", {
        "r": 4, "target_modules": [*ATTENTION, "output.dense"], "rank_pattern": {r"layer\.1\..*query": 2},
        "alpha_pattern": {"value": 3, "0.output.dense": 5}, "task_type": "SEQ_CLS"}),
    "bert base lora": ("bert base", "Lora", {"target_modules": ATTENTION, "layers_to_transform": [1]}),
    "bert rslora dora": ("bert", "Lora", {
        "r": 4, "target_modules": "all-linear", "use_rslora": True, "use_dora": True}),
    "bert embedding": ("bert", "Lora", {"r": 3, "target_modules": ["word_embeddings", "key"]}),
    "bert embedding dora": ("bert", "Lora", {"r": 3, "target_modules": ["position_embeddings"], "use_dora": True}),
    "bert biases": ("bert", "Lora", {"r": 3, "target_modules": ATTENTION, "bias": "all"}),
    "bert lora biases": ("bert", "Lora", {
        "r": 3, "target_modules": r".*layer\.\d\.intermediate\.dense", "bias": "lora_only", "lora_bias": True}),
    "bert excluded": ("bert", "Lora", {
        "r": 3, "target_modules": ["dense"], "exclude_modules": ["pooler.dense"], "modules_to_save": ["LayerNorm"]}),
    "bert tokens": ("bert", "Lora", {
        "r": 3, "target_modules": ["query"], "trainable_token_indices": {"word_embeddings": [3, 0, 7]}}),
    "bert pissa": ("bert", "Lora", {"r": 3, "target_modules": ATTENTION, "init_lora_weights": "pissa"}),
    "bert olora": ("bert", "Lora", {
        "r": 3, "target_modules": ["dense"], "init_lora_weights": "olora", "use_rslora": True}),
    "bert ia3": ("bert", "IA3", {
        "target_modules": ["key", "value", "intermediate.dense"], "feedforward_modules": ["intermediate.dense"],
        "modules_to_save": ["classifier"]}),
    "bert vera": ("bert", "Vera", {"r": 5, "target_modules": [*ATTENTION, "dense"]}),
    "bert loha": ("bert", "LoHa", {"r": 3, "alpha": 5, "target_modules": ATTENTION}),
    "bert lokr": ("bert", "LoKr", {
        "r": 1, "target_modules": ["dense"], "decompose_both": True, "decompose_factor": 2,
        "alpha_pattern": {"intermediate.dense": 3}}),
    "bert norms": ("bert", "LNTuning", {"target_modules": ["LayerNorm", "classifier"]}),
    "vit lora": ("vit", "Lora", {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}),
    "vit patches dora": ("vit", "Lora", {"r": 3, "target_modules": ["projection", "o_proj"], "use_dora": True}),
    "vit of transformers 4": ("vit", "Lora", {
        "target_modules": ["q_proj", "v_proj", "fc1", "fc2", "o_proj"], "modules_to_save": ["classifier"]}),
    "resnet lora": ("resnet", "Lora", {"r": 2, "target_modules": ["convolution"]}),
    "resnet dora": ("resnet", "Lora", {
        "r": 2, "target_modules": r".*layer\.1\.convolution", "use_dora": True, "modules_to_save": ["classifier.1"]}),
    "resnet ia3": ("resnet", "IA3", {
        "target_modules": [
            "layer.0.convolution", "layer.2.convolution", "shortcut.convolution", "embedder.convolution"],
        "feedforward_modules": ["layer.2.convolution", "embedder.convolution"]}),
    "resnet loha": ("resnet", "LoHa", {
        "r": 2, "target_modules": ["convolution"], "use_effective_conv2d": True}),
    "resnet lokr": ("resnet", "LoKr", {
        "r": 2, "target_modules": ["convolution"], "use_effective_conv2d": True, "decompose_factor": 2}),
    "resnet lokr flat": ("resnet", "LoKr", {"r": 1, "target_modules": ["convolution"]}),
    "convnext lora": ("convnext", "Lora", {"r": 2, "target_modules": ["pwconv1", "pwconv2"]}),
}  # fmt: skip
"""The base, the method, and its options."""
OLD_VIT = {
    "layers": "encoder.layer", "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key", "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
}  # fmt: skip
"""Modules of ViT in transformers 5, and as transformers 4 called them."""


def inputs(base):
    """Ids and mask, or an image in our order."""
    if "bert" not in base:
        return uniform("images", (2, 8, 8, 3) if base == "vit" else (2, 32, 32, 3))
    ids = (1 + 29 * (0.5 + 0.5 * uniform("ids", (3, 7)))).astype(np.int64)
    mask = (np.arange(7)[None] < np.array([7, 4, 2])[:, None]).astype(np.int64)
    return {"ids": ids, "mask": mask}


def saved_name(case, name):
    """The name in the file of `case` of a leaf that is called `name` in memory."""
    if case == "vit of transformers 4":
        for new, old in OLD_VIT.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name


def made_tensor(case, name, shape):
    """A tensor of an adapter file, by its name."""
    if name.endswith("base_layer.weight"):
        return made_weight(name.removeprefix(PREFIX).replace(".base_layer", ""), shape)
    x = uniform(f"{case} {name}", shape)
    around_one = ("magnitude_vector", "ia3_l", "lambda_d", "lambda_b", "norm.weight", "LayerNorm.weight")
    if name.endswith(around_one) or (name.endswith("layers.weight") and len(shape) == 1):
        return 1 + 0.5 * x
    if "lora_A" in name or "hada" in name:
        return x * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    return 0.5 * x


def made_tensors(case, shapes):
    """All tensors of a case by name."""
    return {name: made_tensor(case, name, tuple(shape)).astype(np.float32) for name, shape in shapes.items()}


def base_model(base):
    """The model of transformers, with made weights."""
    import torch
    import transformers

    name, config_name, options = BASES[base]
    config = getattr(transformers, config_name)(**options)
    config.architectures = [name]
    model = getattr(transformers, name)(config).eval()
    weights = made_weights(shapes_of(model))
    model.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in weights.items()})
    return model


def shapes_of(model):
    """The shapes of all leaves, by the names that a model has in memory."""
    return {name: tuple(leaf.shape) for name, leaf in model.state_dict().items()}


def run(model, base):
    """Logits, or the hidden states of a model without a head."""
    import torch

    x = inputs(base)
    if isinstance(x, dict):
        x = {"input_ids": torch.from_numpy(x["ids"]), "attention_mask": torch.from_numpy(x["mask"])}
    else:
        x = {"pixel_values": torch.from_numpy(x.transpose(0, 3, 1, 2).copy())}
    with torch.no_grad():
        out = model(**x)
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state).numpy()


def tuned(case):
    """The model with its adapter."""
    import peft
    import torch

    base, method, options = CASES[case]
    torch.manual_seed(0)
    model = peft.get_peft_model(base_model(base), getattr(peft, f"{method}Config")(**options)).eval()
    in_memory = peft.get_peft_model_state_dict(model)
    shapes = {saved_name(case, name): tuple(leaf.shape) for name, leaf in in_memory.items()}
    tensors = made_tensors(case, shapes)
    state = {name: torch.from_numpy(tensors[saved_name(case, name)]) for name in in_memory}
    peft.set_peft_model_state_dict(model, state)
    return model, shapes


def result(case):
    """The names and shapes in the file of `case`, its configuration, and what the model computes."""
    model, shapes = tuned(case)
    base = CASES[case][0]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
    for key in ("target_modules", "exclude_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    if case == "vit of transformers 4":
        config["target_modules"] = ["attention.output.dense", "intermediate.dense", "output.dense", "query", "value"]
    out = run(model, base)
    assert np.abs(out - run(base_model(base), base)).max() > 1e-2, case
    return {"about": np.array(json.dumps({"shapes": shapes, "config": config})), "out": out}


def main() -> None:
    arrays = {f"{case}/{key}": value for case in CASES for key, value in result(case).items()}
    for base in BASES:
        model = base_model(base)
        config = json.loads(model.config.to_json_string(use_diff=False))
        about = {"shapes": shapes_of(model), "config": config}
        arrays[f"base {base}/about"] = np.array(json.dumps(about))
    np.savez_compressed(PATH, **arrays)
    print(PATH, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
