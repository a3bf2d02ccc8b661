"""How fast a folder of JPEGs is trained on: images per second, and the share of a step spent waiting for its batch.

A linear model, whose steps take next to no time, and a narrow ResNet, on 64 x 64 pixels out of generated JPEGs of
320 x 240, which are decoded, resized and cut by a preprocessor: from arrays in memory, and streamed with 0, 1 and 2
worker processes. The first third of the steps, in which programs are compiled and workers start, is left out of the
images per second. Where the steps run on the CPU, they and the workers share its cores.

    python benchmarks/streaming.py [--steps 48] [--batch-size 32] [--workers 0 1 2] [--output FILE]
"""

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np
import optax
from facts import facts
from PIL import Image

import tljax as tl

RESULT = pathlib.Path(__file__).parent / "results" / "streaming.json"
PREPROCESSOR = tl.data.Preprocessor(resize=72, crop=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
CLASSES, IMAGES = 4, 256


def write_images(folder: pathlib.Path) -> None:
    """Coarse noise, enlarged: JPEGs of some 20 kB, as photographs of that size have."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = folder / f"class{i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)


def measure(model: tl.Model, params: Any, train: Any, steps: int, batch_size: int) -> dict[str, float | None]:
    """One run: what it made in its last two thirds, and how long it waited."""
    warm, seen = steps // 3, []

    def note(row: Any) -> None:
        if row["split"] == "train":
            seen.append((row["step"], time.perf_counter()))

    result = tl.fit(
        model, params, tl.cross_entropy(), train=train, optimizer=optax.sgd(0.01), steps=steps, batch_size=batch_size,
        progress=False, log_every=warm, on_log=[note],
    )  # fmt: skip
    (first, began), (last, ended) = seen[0], seen[-1]
    return {"images_per_second": batch_size * (last - first) / (ended - began), "input_wait": result.input_wait}


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    models = {"linear": tl.models.mlp((), num_classes=CLASSES), "ResNet-8": tl.models.resnet(8, CLASSES, width=4)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_images(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*.jpg")) / IMAGES
        images = tl.data.ImageFolder(folder, PREPROCESSOR)
        began = time.perf_counter()
        memory = tl.data.stream(images).examples(range(IMAGES))
        decoded = IMAGES / (time.perf_counter() - began)
        ways = {"in memory": (memory.x, memory.y)}
        ways |= {f"{n} workers": tl.data.stream(images, workers=n) for n in options.workers}
        found: dict[str, dict[str, Any]] = {}
        print(f"decoding alone: {decoded:.0f} images/s, {size / 1000:.0f} kB each\n")
        print(f"{'model':<12}{'data':<12}{'images/s':>10}{'of a step waiting':>20}")
        for kind, model in models.items():
            params, found[kind] = model.init(jax.random.key(0), memory.x[:1]), {}
            for name, train in ways.items():
                row = found[kind][name] = measure(model, params, train, options.steps, options.batch_size)
                wait = "" if row["input_wait"] is None else f"{row['input_wait']:.1%}"
                print(f"{kind:<12}{name:<12}{row['images_per_second']:>10.0f}{wait:>20}", flush=True)
    settings = {"steps": options.steps, "batch_size": options.batch_size, "image_bytes": size}
    whole = facts("grain") | {**settings, "decoding_images_per_second": decoded, "models": found}
    options.output.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
