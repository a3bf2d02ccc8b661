"""Writes conv_models.npz: outputs of small convolutional networks of transformers, timm, torchvision and plain torch.

python tests/golden/make_conv_models.py

Run by hand where torch, transformers, timm and torchvision are installed. made_weights.py makes weights and inputs,
so the file holds names, shapes, configurations and outputs only.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from made_weights import made_weights, uniform  # noqa: E402

PATH = HERE / "conv_models.npz"
CLASSES = 5


def transformers_resnet(**options):
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=CLASSES, embedding_size=8, depths=[1, 2], **options))


def transformers_convnext(**options):
    from transformers import ConvNextConfig, ConvNextForImageClassification

    sizes = {"depths": [1, 2], "hidden_sizes": [8, 16], "num_stages": 2}
    return ConvNextForImageClassification(ConvNextConfig(num_labels=CLASSES, **sizes, **options))


def transformers_mobilenet(**options):
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    return MobileNetV1ForImageClassification(MobileNetV1Config(num_labels=CLASSES, min_depth=4, **options))


def torchvision_resnet(block):
    from torchvision.models import resnet

    return resnet.ResNet(getattr(resnet, block), [1, 2, 1, 1], num_classes=CLASSES)


def torchvision_convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=CLASSES)


def timm_model(name, **options):
    import timm

    return timm.create_model(name, num_classes=CLASSES, **options)


def plain(name, *args):
    import conv_torch

    return getattr(conv_torch, name)(*args, CLASSES)


CASES = {
    "transformers resnet bottleneck": (lambda: transformers_resnet(hidden_sizes=[16, 32]), (33, 40, 3)),
    "transformers resnet v1": (
        lambda: transformers_resnet(hidden_sizes=[16, 32], downsample_in_bottleneck=True, num_channels=1),
        (32, 32, 1),
    ),
    "transformers resnet basic": (lambda: transformers_resnet(hidden_sizes=[8, 16], layer_type="basic"), (32, 32, 3)),
    "transformers convnext": (transformers_convnext, (19, 24, 3)),
    "transformers convnext unscaled": (lambda: transformers_convnext(layer_scale_init_value=0.0), (16, 16, 3)),
    "transformers mobilenet": (lambda: transformers_mobilenet(depth_multiplier=0.125), (33, 40, 3)),
    "transformers mobilenet even": (
        lambda: transformers_mobilenet(depth_multiplier=0.125, tf_padding=False, hidden_act="relu"),
        (32, 32, 3),
    ),
    "torchvision resnet bottleneck": (lambda: torchvision_resnet("Bottleneck"), (32, 32, 3)),
    "torchvision resnet basic": (lambda: torchvision_resnet("BasicBlock"), (32, 32, 3)),
    "torchvision convnext": (torchvision_convnext, (16, 16, 3)),
    "timm resnet18": (lambda: timm_model("resnet18"), (32, 32, 3)),
    "timm convnext": (lambda: timm_model("convnext_tiny", depths=(1, 2, 1, 1), dims=(8, 12, 16, 16)), (40, 32, 3)),
    "timm mobilenet": (lambda: timm_model("mobilenetv1_100"), (32, 32, 3)),
    "torch wide resnet": (lambda: plain("WideResNet", 10, 1), (12, 16, 3)),
    "torch cifar resnet": (lambda: plain("CifarResNet", 1, 4), (12, 16, 3)),
    "facebook convnext": (lambda: plain("ConvNeXt", (1, 2), (8, 16)), (16, 16, 3)),
    "torch lenet": (lambda: plain("LeNet"), (28, 28, 1)),
}
"""A function that builds the model, and the shape of its images."""


def inputs(shape):
    """Two images `[2, H, W, C]`."""
    return uniform("images", (2, *shape))


def result(case):
    """What the model of `case` is, and what it makes of the images: JSON, logits, features."""
    import torch

    build, shape = CASES[case]
    model = build().eval()
    shapes = {name: tuple(leaf.shape) for name, leaf in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(leaf) for name, leaf in made_weights(shapes).items()})
    seen = []
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    head.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        out = model(torch.from_numpy(inputs(shape)).permute(0, 3, 1, 2).contiguous())
    logits = getattr(out, "logits", out)
    config = None
    if hasattr(model, "config"):
        model.config.architectures = [type(model).__name__]
        config = json.loads(model.config.to_json_string(use_diff=False)) | {"dtype": "float32"}
    about = {"shapes": shapes, "images": shape, "config": config}
    return json.dumps(about), logits.numpy(), seen[-1].numpy()


def main() -> None:
    arrays = {}
    for case in CASES:
        arrays[f"{case}/about"], arrays[f"{case}/logits"], arrays[f"{case}/features"] = result(case)
        print(f"{case}: |logits| up to {np.abs(arrays[f'{case}/logits']).max():.2f}")
    np.savez_compressed(PATH, **arrays)
    print(PATH, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
