"""The candidates of the zoo: shared checkpoints, and nets pretrained here.

    python benchmarks/zoo/candidates.py [--run-dir runs/zoo]

pretrains what is missing and stores it below the run folder, with the accuracy on held-out images of the source.
"""

import argparse
import functools
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tasks import source

import tljax as tl
from tljax.data import resize_images
from tljax.tree import named_leaves
from tljax.types import is_state

RUN_DIR = "runs/zoo"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.5,), (0.25,))


class Candidate(NamedTuple):
    """Weights and their preprocessing."""

    architecture: str
    """A key of `architecture`."""
    size: int
    """Images are resized to this side."""
    channels: int = 3
    scaling: tuple[tuple[float, ...], tuple[float, ...]] = _PLAIN
    """Mean and standard deviation of the channels, for pixels from 0 to 1."""
    source: str = ""
    """What it is pretrained on here; empty for a checkpoint or a random start."""
    steps: int = 0
    rate: float = 2e-3
    file: str = ""
    """A checkpoint below TLJAX_DATA_DIR."""
    upstream: float = 0.0
    """The accuracy of a checkpoint on its own task, as its README says; of nets trained here it is measured."""
    classes: int = 10
    """Of its source."""


CANDIDATES = {
    "lenet-mnist": Candidate("lenet", 28, 1, ((0.0,), (1.0,)), file="lenet_mnist/mnist_lenet5_clntrained.pt",
                             upstream=0.9889),
    "resnet20-cifar": Candidate("resnet20", 24, 3, _IMAGENET, file="resnet_cifar10/resnet20-12fca82f.th",
                                upstream=0.9173),
    "mobilenet-imagenet": Candidate("mobilenet", 32, 3, _IMAGENET, upstream=0.512, classes=1000,
                                    file="mobilenetv1_025/mobilenetV1X0.25_pretrain.tar"),
    "smallnet-mnist-brief": Candidate("smallnet", 28, source="mnist", steps=40),
    "smallnet-mnist-turned": Candidate("smallnet", 28, source="mnist-turned", steps=600),
    "smallnet-mnist-photos": Candidate("smallnet", 28, source="mnist-photos", steps=1000),
    "smallnet-mnist-0-4": Candidate("smallnet", 28, source="mnist-0-4", steps=400, classes=5),
    "smallnet-cifar": Candidate("smallnet", 28, source="cifar", steps=600),
    "resnet8-cifar": Candidate("resnet8", 24, source="cifar", steps=1000),
    "resnet8-turns": Candidate("resnet8", 24, source="cifar-turns", steps=600, classes=4),
    "resnet8-both": Candidate("resnet8", 24, source="digits-and-objects", steps=800, classes=20),
    "resnet8-random": Candidate("resnet8", 24),
    "vit-cifar": Candidate("vit", 28, source="cifar", steps=600, rate=1e-3),
    "vit-mnist-photos": Candidate("vit", 28, source="mnist-photos", steps=800, rate=1e-3),
    "mlp-mnist": Candidate("mlp-wide", 28, source="mnist", steps=600, rate=1e-3),
    "mlp-cifar": Candidate("mlp", 28, source="cifar", steps=600, rate=1e-3),
}  # fmt: skip


@functools.cache
def architecture(name: str, classes: int = 10) -> tl.Model:
    """The model; one object for all candidates that share it, so that its programs are compiled once."""
    m = tl.models
    return {
        "lenet": lambda: m.lenet(classes),
        "smallnet": lambda: m.lenet(classes, channels=(16, 32), hidden=128),
        "resnet8": lambda: m.resnet(8, classes),
        "resnet20": lambda: m.resnet(20, classes),
        "mobilenet": lambda: m.mobilenet_v1(0.25, classes, act="leaky_relu_0.1", padding="even", epsilon=1e-5),
        "vit": lambda: m.vit("ti", classes, patch=4, width=48, depth=3, heads=3, pool="mean"),
        "mlp": lambda: m.mlp((64,), classes),
        "mlp-wide": lambda: m.mlp((512, 256), classes),
    }[name]()


def prepared(candidate: Candidate, x: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, 3]` uint8 as the candidate takes them."""
    mean, deviation = candidate.scaling
    sized = resize_images(x, (candidate.size, candidate.size)) / 255
    if candidate.channels == 1:
        sized = sized.mean(-1, keepdims=True)
    return ((sized - np.asarray(mean)) / np.asarray(deviation)).astype(np.float32)


def load(name: str, run_dir: str) -> tuple[tl.Model, Any, float]:
    """The model with its own head, its parameters, and its accuracy on its own task."""
    candidate = CANDIDATES[name]
    if candidate.file:
        found = tl.load_pretrained(pathlib.Path(os.environ["TLJAX_DATA_DIR"]) / "checkpoints" / candidate.file)
        return found.model, found.params, candidate.upstream
    model, params = architecture(candidate.architecture, candidate.classes), start(candidate)
    if not candidate.source:
        return model, params, 0.1
    file = pathlib.Path(run_dir) / "pretrained" / name
    params = tl.graft(params, tl.load_weights(file.with_suffix(".safetensors")))[0]
    return model, params, json.loads(file.with_suffix(".json").read_text())["upstream"]


def start(candidate: Candidate, classes: int = 0, seed: int = 0) -> Any:
    """Initial parameters."""
    model = architecture(candidate.architecture, classes or candidate.classes)
    x = jnp.zeros((1, candidate.size, candidate.size, candidate.channels))
    return jax.jit(model.init)(jax.random.key(seed), x)


def size(params: Any) -> int:
    """The number of parameters of the backbone, statistics not counted."""
    return sum(int(np.size(leaf)) for name, leaf in named_leaves(params["backbone"]).items() if not is_state(name))


def batches(x: np.ndarray, y: np.ndarray, steps: int, augment: bool) -> Iterator[tl.Batch]:
    """Random batches of 32; augmented ones are flipped and shifted by up to two pixels."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        i = rng.integers(0, len(y), 32)
        images = x[i]
        if augment:
            flips, shifts = rng.random(32) < 0.5, rng.integers(-2, 3, (32, 2))
            images = np.stack([
                np.roll(image[:, ::-1] if flip else image, shift, (0, 1))
                for image, flip, shift in zip(images, flips, shifts)
            ])  # fmt: skip
        yield tl.Batch(images, y[i])


def pretrain(name: str, run_dir: str) -> dict[str, float]:
    """Train a candidate on its source and store it; a tenth of the source tells its accuracy."""
    candidate, began = CANDIDATES[name], time.perf_counter()
    model, params = architecture(candidate.architecture, candidate.classes), start(candidate)
    x, y = source(candidate.source)
    x, order = prepared(candidate, x), np.random.default_rng(1).permutation(len(y))
    held, used = np.split(order, [len(y) // 10])
    rate = optax.cosine_decay_schedule(candidate.rate, candidate.steps)
    step = tl.make_step(model, tl.cross_entropy(), tl.plan().resolve(params), optax.adamw(rate, weight_decay=1e-4))
    update, state = jax.jit(step.update), None
    for batch in batches(x[used], y[used], candidate.steps, candidate.source in ("cifar", "digits-and-objects")):
        state = step.init(params, {"train": batch}, seed=0) if state is None else state
        state, _ = update(state, {"train": batch})
    upstream = tl.evaluate(model, state.params, (x[held], y[held]))["accuracy"]
    file = pathlib.Path(run_dir) / "pretrained" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    tl.save_weights(state.params, file.with_suffix(".safetensors"))
    found = {"upstream": float(upstream), "seconds": time.perf_counter() - began}
    file.with_suffix(".json").write_text(json.dumps(found))
    return found


def main() -> None:
    """Pretrain what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", default=RUN_DIR)
    options = parser.parse_args()
    for name, candidate in CANDIDATES.items():
        done = pathlib.Path(options.run_dir, "pretrained", f"{name}.json").exists()
        if candidate.source and not done:
            print(name, pretrain(name, options.run_dir), flush=True)


if __name__ == "__main__":
    main()
