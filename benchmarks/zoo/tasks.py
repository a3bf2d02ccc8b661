"""The target tasks of the zoo, and the sources that candidates are pretrained on.

No source shares an image with a target: sources draw on the training parts of MNIST and CIFAR-10, targets on the test
parts, on USPS and on PACS.
"""

import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tljax.data import k_shot

SHOTS = (5, 20, 100)
VALID = 200
"""At most so many examples choose the learning rate of the ground truth."""
TEST = 500


class Task(NamedTuple):
    """A labelled set cut into three: a pool to draw labels from, what chooses a learning rate, and the test set."""

    name: str
    classes: int
    pool: tuple[np.ndarray, np.ndarray]
    """Images `[N, H, W, 3]` uint8 and labels `[N]`, of every class equally many."""
    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    def subset(self, shots: int, draw: int) -> np.ndarray:
        """The indices in the pool of `shots` examples of each class; those of one draw are nested."""
        return k_shot(self.pool[1], shots, seed=draw)


Images = tuple[np.ndarray, np.ndarray]


def data(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file below TLJAX_DATA_DIR."""
    with np.load(pathlib.Path(os.environ["TLJAX_DATA_DIR"]) / name) as file:
        return dict(file)


def mnist(part: str) -> Images:
    """MNIST in random order; the file has it class by class."""
    d = data(f"digits/mnist_{part}.npz")
    order = np.random.default_rng(0).permutation(len(d["y"]))
    return d["x"][order], d["y"][order].astype(np.int32)


def colour(x: np.ndarray) -> np.ndarray:
    """Grey images `[N, H, W]` as `[N, H, W, 3]`."""
    return np.repeat(x[..., None], 3, axis=-1)


def on_photos(digits: np.ndarray, photos: np.ndarray, seed: int) -> np.ndarray:
    """Digits `[N, 28, 28]` as the difference to pieces of photographs, like MNIST-M."""
    rng = np.random.default_rng(seed)
    which, top, left = (rng.integers(0, high, len(digits)) for high in (len(photos), 5, 5))
    pieces = np.stack([photos[i, a : a + 28, b : b + 28] for i, a, b in zip(which, top, left)])
    return np.abs(pieces.astype(np.int16) - colour(digits)).astype(np.uint8)


def turned(digits: np.ndarray, degrees: float, seed: int) -> np.ndarray:
    """Digits turned by up to so many degrees to either side."""
    from scipy.ndimage import rotate

    angles = np.random.default_rng(seed).uniform(-degrees, degrees, len(digits))
    return np.stack([rotate(x, a, reshape=False, order=1) for x, a in zip(digits, angles)])


def quarter_turns(x: np.ndarray, seed: int) -> Images:
    """Images turned by 0, 90, 180 or 270 degrees; which is the label."""
    y = np.random.default_rng(seed).integers(0, 4, len(x))
    return np.stack([np.rot90(image, k) for image, k in zip(x, y)]), y


def cut(name: str, parts: tuple[Images, Images] | Images, pool: int, seed: int = 0) -> Task:
    """A task from one labelled set, or from one to draw on and one to test on: `pool` a class, the rest as it comes."""
    train, test = parts if isinstance(parts[0], tuple) else (parts, None)
    x, y = train[0], np.asarray(train[1], np.int32)
    chosen = np.sort(k_shot(y, pool, seed=seed))
    left = np.random.default_rng(seed).permutation(np.setdiff1d(np.arange(len(y)), chosen))
    valid, rest = left[: min(VALID, len(left) // 3)], left[min(VALID, len(left) // 3) :]
    if test is None:
        tested = (x[rest[:TEST]], y[rest[:TEST]])
    else:
        some = np.random.default_rng(seed).permutation(len(test[1]))[:TEST]
        tested = (test[0][some], np.asarray(test[1], np.int32)[some])
    return Task(name, int(y.max()) + 1, (x[chosen], y[chosen]), (x[valid], y[valid]), tested)


def usps() -> Task:
    """USPS, 16x16, filling its frame as MNIST does not."""
    d = data("digits/usps.npz")
    parts = [(colour((d[f"{p}_x"].reshape(-1, 16, 16) * 255).astype(np.uint8)), d[f"{p}_y"]) for p in ("train", "test")]
    return cut("usps", (parts[0], parts[1]), 120)


def mnist_photos() -> Task:
    """Test digits of MNIST on photographs of the CIFAR-10 test cut."""
    (x, y), photos = mnist("test"), data("images/cifar10.npz")["test_x"]
    return cut("mnist-photos", (on_photos(x[:5000], photos, 1), y[:5000]), 120)


def mnist_moved() -> Task:
    """Other test digits of MNIST, dark on light, turned by up to 60 degrees, under noise."""
    digits, y = mnist("test")
    x = 255.0 - turned(digits[5000:], 60, 2)
    x = np.clip(x + np.random.default_rng(2).normal(0, 60, x.shape), 0, 255).astype(np.uint8)
    return cut("mnist-moved", (colour(x), y[5000:]), 120)


def cifar() -> Task:
    """CIFAR-10, the test cut."""
    d = data("images/cifar10.npz")
    return cut("cifar10", (d["test_x"], d["test_y"]), 120)


def cifar_negative() -> Task:
    """CIFAR-10, the test cut as grey negatives."""
    d = data("images/cifar10.npz")
    return cut("cifar10-negative", (255 - colour(d["test_x"].mean(-1).astype(np.uint8)), d["test_y"]), 120)


def cifar_turns() -> Task:
    """By how many quarter turns an image of the CIFAR-10 test cut is turned."""
    return cut("cifar-turns", quarter_turns(data("images/cifar10.npz")["test_x"], 3), 120)


def _pacs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = data("images/pacs64.npz")
    domains = ("art_painting", "cartoon", "photo", "sketch")
    x, y = (np.concatenate([d[f"{name}_{field}"] for name in domains]) for field in "xy")
    return x, y, np.repeat(np.arange(4), [len(d[f"{name}_y"]) for name in domains])


def pacs() -> Task:
    """The seven classes of PACS, all four domains together."""
    x, y, _ = _pacs()
    return cut("pacs", (x, y), 110)


def pacs_domain() -> Task:
    """The four domains of PACS, all seven classes together."""
    x, _, domain = _pacs()
    return cut("pacs-domain", (x, domain), 120)


TASKS: dict[str, Callable[[], Task]] = {
    "usps": usps, "pacs": pacs, "cifar10": cifar, "mnist-photos": mnist_photos, "cifar-turns": cifar_turns,
    "pacs-domain": pacs_domain, "mnist-moved": mnist_moved, "cifar10-negative": cifar_negative,
}  # fmt: skip


def source(name: str) -> Images:
    """A labelled set to pretrain on: images `[N, H, W, 3]` uint8 and labels."""
    (x, y), photos = mnist("train"), data("images/cifar10.npz")
    x, y = x[:20_000], y[:20_000]
    objects = photos["train_x"], photos["train_y"].astype(np.int32)
    if name == "mnist":
        return colour(x), y
    if name == "mnist-turned":
        return colour(turned(x, 60, 0)), y
    if name == "mnist-photos":
        return on_photos(x, photos["train_x"], 0), y
    if name == "mnist-0-4":
        return colour(x[y < 5]), y[y < 5]
    if name == "cifar":
        return objects
    if name == "cifar-turns":
        return quarter_turns(np.concatenate([photos["train_x"]] * 4), 0)
    if name == "digits-and-objects":
        digits = np.pad(on_photos(x[:5000], photos["train_x"], 0), ((0, 0), (2, 2), (2, 2), (0, 0)))
        both = np.concatenate([digits, objects[0], objects[0]])
        return both, np.concatenate([y[:5000], objects[1] + 10, objects[1] + 10])
    raise KeyError(name)
