"""The networks of the torch side: ResNet as torchvision writes it, MLPs, and transformers' encoders with a head."""

import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

import tljax as tl
from benchmarks.against_torch.cases import Case


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, down: nn.Module | None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = down

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Basic(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, down: nn.Module | None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = down

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ImageNet's, with the names of torchvision."""

    def __init__(self, block: Any, blocks: tuple[int, ...], classes: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for i, count in enumerate(blocks):
            layers, width = [], 64 << i
            for j in range(count):
                stride, outputs, down = 2 if i and not j else 1, width * block.expansion, None
                if stride > 1 or inputs != outputs:
                    down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
                layers.append(block(inputs, width, stride, down))
                inputs = outputs
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Encoder(nn.Module):
    """An encoder of transformers, what it pools, and a linear head."""

    def __init__(self, base: nn.Module, pool: str, head: nn.Linear):
        super().__init__()
        self.base, self.pool, self.fc = base, pool, head

    def forward(self, *x: Any) -> Any:
        if self.pool == "cls":
            return self.fc(self.base(pixel_values=x[0]).last_hidden_state[:, 0])
        ids, mask = x
        out = self.base(input_ids=ids, attention_mask=mask)
        if self.pool == "pooler":
            return self.fc(out.pooler_output)
        weight = mask[..., None].to(out.last_hidden_state.dtype)
        return self.fc((out.last_hidden_state * weight).sum(1) / weight.sum(1))


def network(case: Case, name: str, model: tl.Model, params: Any, adapters: Any = None) -> nn.Module:
    """The torch network with the weights of `params`, and peft's adapters with those of `adapters`."""
    if name in ("net", "mlp", "probe"):
        return _mlp(params)
    if name.startswith("resnet"):
        net = ResNet(*{"resnet18": (Basic, (2, 2, 2, 2)), "resnet50": (Bottleneck, (3, 4, 6, 3))}[name], case.classes)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "weights.pth"
            tl.models.export(model, params, file, format="torch", convention="torchvision")
            net.load_state_dict(torch.load(file))
        return net
    pool = "cls" if name.startswith("vit") else "mean" if name == "minilm" else "pooler"
    return Encoder(_base(model, params, adapters, pool), pool, _linear(params["head"]))


def _base(model: tl.Model, params: Any, adapters: Any, pool: str) -> nn.Module:
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        tl.models.export(model, params, f"{folder}/base", convention="transformers-base")
        options = {"add_pooling_layer": pool == "pooler"}
        base = transformers.AutoModel.from_pretrained(f"{folder}/base", attn_implementation="sdpa", **options)
        if adapters is None:
            return base
        import peft

        # The layers of a ViT have other names in transformers 5.
        names = "transformers5-base" if "transformers5-base" in model.keymaps else "transformers-base"
        tl.peft.save_adapters(adapters, f"{folder}/lora", model, params, base_model=f"{folder}/base", convention=names)
        return peft.PeftModel.from_pretrained(base, f"{folder}/lora", is_trainable=True)


def _mlp(params: Any) -> nn.Module:
    net = nn.Sequential()
    for name, block in params.get("backbone", {}).items():
        net.add_module(name, _linear(block["dense"]))
        net.add_module(f"{name}_relu", nn.ReLU())
    net.add_module("fc", _linear(params["head"]))
    return net


def _linear(dense: Any) -> nn.Linear:
    kernel, bias = (np.array(jax.device_get(dense[name])) for name in ("kernel", "bias"))
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer
