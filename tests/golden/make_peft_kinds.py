"""Writes peft_kinds.npz: what peft makes of a weight, for each kind of adapter and of layer.

python tests/golden/make_peft_kinds.py

Run by hand where torch and peft are installed; tests/peft/test_kinds_golden.py runs it again there. made_weights.py
makes weights, factors and inputs from their names; the file holds what peft computed.
"""

import pathlib
import sys
import warnings

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_weights import made_weight, uniform  # noqa: E402

PATH = HERE / "peft_kinds.npz"
RANK, ALPHA = 3, 5
LAYERS = {
    "linear": ("Linear", (6, 10)),
    "conv1d": ("Conv1d", (4, 6, 3)),
    "conv2d": ("Conv2d", (4, 6, 3)),
    "embedding": ("Embedding", (9, 5)),
}
"""The class and its arguments."""
CASES = [
    *((kind, layer) for kind in ("lora", "rslora", "dora") for layer in LAYERS),
    ("pissa", "linear"), ("olora", "linear"), ("vera", "linear"), ("bf16", "linear"),
    ("ia3", "linear"), ("ia3", "conv2d"), ("ia3 feedforward", "linear"), ("ia3 feedforward", "conv2d"),
]  # fmt: skip


def base(layer):
    """A module whose only child is the layer, with made weights."""
    import torch

    kind, arguments = LAYERS[layer]
    net = torch.nn.Module()
    net.layer = getattr(torch.nn, kind)(*arguments)
    with torch.no_grad():
        for name, leaf in net.layer.named_parameters():
            leaf.copy_(torch.from_numpy(made_weight(f"{layer}.{name}", tuple(leaf.shape))))
    return net


def config(kind):
    import peft

    if kind == "vera":
        return peft.VeraConfig(r=RANK, target_modules=["layer"])
    if kind.startswith("ia3"):
        into = ["layer"] if kind == "ia3 feedforward" else []
        return peft.IA3Config(target_modules=["layer"], feedforward_modules=into)
    start = kind if kind in ("pissa", "olora") else True
    options = {"use_rslora": kind == "rslora", "use_dora": kind == "dora", "init_lora_weights": start}
    return peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], **options)


def adapted(kind, layer):
    """The peft model at its start, and its trained leaves by their short names."""
    import peft
    import torch

    torch.manual_seed(0)
    net = base(layer).bfloat16() if kind == "bf16" else base(layer)
    model = peft.get_peft_model(net, config(kind))
    leaves = {name.split("layer.")[-1]: leaf for name, leaf in model.named_parameters() if leaf.requires_grad}
    return model, {short(name): leaf for name, leaf in leaves.items()}


def short(name):
    return next(s for key, s in NAMES.items() if key in name)


NAMES = {
    "lora_A": "a", "lora_embedding_A": "a", "lora_B": "b", "lora_embedding_B": "b", "magnitude": "magnitude",
    "lambda_d": "d", "lambda_b": "b", "ia3_l": "value",
}  # fmt: skip


def perturbed(kind, layer, name, leaf):
    """The leaf after some training, as it were."""
    step = uniform(f"{kind}.{layer}.{name}", tuple(leaf.shape))
    return np.asarray(leaf.detach().float().numpy() + np.float32(0.4) * step, np.float32)


def result(kind, layer):
    """What peft makes: the trained leaves, the merged weight and, for DoRA on linear, gradients."""
    import torch

    model, leaves = adapted(kind, layer)
    found = {}
    if kind in ("pissa", "olora"):
        found |= {"a0": leaves["a"].detach().numpy().copy(), "b0": leaves["b"].detach().numpy().copy()}
    for name, leaf in leaves.items():
        found[name] = perturbed(kind, layer, name, leaf)
        with torch.no_grad():
            leaf.copy_(torch.from_numpy(found[name]))
    if kind == "vera":
        found |= {"A": model.base_model.vera_A["default"].numpy(), "B": model.base_model.vera_B["default"].numpy()}
    if (kind, layer) == ("dora", "linear"):
        found |= gradients(model, leaves)
    merged = model.merge_and_unload(safe_merge=kind == "bf16").layer  # "safe" rounds the update to the base's dtype
    found["merged"] = merged.weight.detach().float().numpy()
    if kind.startswith("ia3"):
        found["merged_bias"] = merged.bias.detach().numpy()
    return found


def gradients(model, leaves):
    """Of the sum of made weights times the outputs for made inputs, through the layer as it stands."""
    import torch

    inputs, weights = (torch.from_numpy(uniform(name, (7, n))) for name, n in (("inputs", 6), ("weights", 10)))
    loss = (model.base_model.model.layer(inputs) * weights).sum()
    return {f"grad_{name}": g.numpy() for name, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())))}


def starts():
    """Smallest, largest and standard deviation of what peft draws, for layers large enough to tell."""
    import peft
    import torch

    torch.manual_seed(0)
    net = torch.nn.Module()
    net.linear, net.conv, net.table = torch.nn.Linear(400, 300), torch.nn.Conv2d(64, 80, 3), torch.nn.Embedding(90, 500)
    found = {}
    for init in (True, "gaussian"):
        one = peft.LoraConfig(r=40, target_modules=["linear", "conv", "table"], init_lora_weights=init)
        model = peft.get_peft_model(base_copy(net), one).base_model.model
        word = "kaiming" if init is True else init
        found[f"{word}/linear"] = model.linear.lora_A["default"].weight
        found[f"{word}/conv"] = model.conv.lora_A["default"].weight
        found[f"{word}/embedding"] = model.table.lora_embedding_B["default"]
    model = peft.get_peft_model(base_copy(net), peft.VeraConfig(target_modules=["linear"])).base_model
    found |= {"vera/a": model.vera_A["default"], "vera/b": model.vera_B["default"]}
    return {f"start/{k}": np.array([x.min().item(), x.max().item(), x.std().item()]) for k, x in found.items()}


def base_copy(net):
    import copy

    return copy.deepcopy(net)


def results():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of layers outside of its own models
        found = {f"{kind}/{layer}/{k}": v for kind, layer in CASES for k, v in result(kind, layer).items()}
        return found | starts()


if __name__ == "__main__":
    np.savez_compressed(PATH, **results())
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
