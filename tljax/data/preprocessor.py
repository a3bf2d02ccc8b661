"""How a pretrained model wants its images: a folder's `preprocessor_config.json`, or timm's config.json."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.checkpoints.run import write_atomically
from tljax.data.error import DataError
from tljax.data.files import reading
from tljax.data.folder import pillow
from tljax.tree.paths import quoted

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's codes
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5,) * 3, (0.5,) * 3)


class _Family(NamedTuple):
    """What a kind of image processor does where its file says nothing."""

    size: Any
    crop: int | None
    resample: int
    colours: tuple[tuple[float, ...], tuple[float, ...]]


_FAMILIES = {
    "ViT": _Family({"height": 224, "width": 224}, None, 2, _HALF),
    "DeiT": _Family({"height": 256, "width": 256}, 224, 3, _HALF),
    "CLIP": _Family({"shortest_edge": 224}, 224, 3, _CLIP),
    "Bit": _Family({"shortest_edge": 224}, 224, 3, _CLIP),
    "ConvNext": _Family({"shortest_edge": 384}, None, 3, _HALF),
    "Siglip": _Family({"height": 224, "width": 224}, None, 3, _HALF),
}


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """From an image to what a model reads: resized, cut, scaled, standardised; each step may be None.

    Called with one uint8 image `[H, W]`, `[H, W, C]`, a Pillow image, or a batch `[N, H, W, C]`; gives float32 with
    the channels last. Resizing is Pillow's, on uint8, so it agrees with transformers' image processors.

    >>> preprocessor = Preprocessor(resize=4, crop=(2, 2), mean=(0.5,), std=(0.5,))
    >>> preprocessor(np.full((8, 6, 1), 255, np.uint8)).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    resize: int | tuple[int, int] | None = None
    """(height, width); or a number: the length of the shorter side, the longer one in proportion."""
    crop: tuple[int, int] | None = None
    """The height and width of what is cut from the middle; smaller images get a black border."""
    resample: int = 2
    """Pillow's code of the filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming."""
    scale: float | None = 1 / 255
    """Factor on the pixels."""
    mean: tuple[float, ...] | None = None
    """Taken off each channel, after scaling."""
    std: tuple[float, ...] | None = None
    """What each channel is then divided by."""

    def __str__(self) -> str:
        size = self.resize if isinstance(self.resize, int) else "x".join(map(str, self.resize or ()))
        what = f"shorter side to {size}" if isinstance(self.resize, int) else f"to {size}"
        steps = [f"resize {what}, {_FILTERS[self.resample]}"] if self.resize else []
        steps += [f"cut the middle {self.crop[0]}x{self.crop[1]}"] if self.crop else []
        steps += [f"times {self.scale:.6g}"] if self.scale is not None else []
        steps += [f"minus {list(self.mean)}, over {list(self.std or ())}"] if self.mean else []
        return "; ".join(steps) or "images as they are"

    def __call__(self, image: Any) -> np.ndarray:
        """The image or images as float32 `[H', W', C]` or `[N, H', W', C]`; raises a `DataError` if they are none."""
        if not hasattr(image, "getbands"):
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim not in (2, 3, 4):
                raise DataError(
                    f"a preprocessor takes uint8 images [H, W, C] or [N, H, W, C]; found {image.dtype} {image.shape}"
                )
            if image.ndim == 4:
                return np.stack([self(one) for one in image])
        pixels = self._resized(_pixels(image, len(self.mean) if self.mean else 3))
        pixels = pixels if self.crop is None else _cut(pixels, *self.crop)
        out: np.ndarray = pixels.astype(np.float32)
        if self.scale is not None:
            out = (pixels.astype(np.float64) * self.scale).astype(np.float32)
        if self.mean is not None and self.std is not None:
            out = (out - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return out

    def save(self, folder: str | Path) -> None:
        """Write preprocessor_config.json into a folder that exists, such as `tl.export` made.

        transformers reads it as a `CLIPImageProcessor`, which has every step that there is here.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Preprocessor(resize=4, crop=(2, 2)).save(folder)
        ...     load_preprocessor(folder)
        Preprocessor(resize=4, crop=(2, 2), resample=2, scale=0.00392156862745098, mean=None, std=None)
        """
        config: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
        if self.resize is not None:
            edge = {"shortest_edge": self.resize} if isinstance(self.resize, int) else _sides(self.resize)
            config |= {"size": edge, "resample": self.resample}
        if self.crop is not None:
            config["crop_size"] = _sides(self.crop)
        if self.scale is not None:
            config["rescale_factor"] = self.scale
        if self.mean is not None and self.std is not None:
            config |= {"image_mean": list(self.mean), "image_std": list(self.std)}
        steps = {"resize": self.resize, "center_crop": self.crop, "rescale": self.scale, "normalize": self.mean}
        config |= {f"do_{step}": value is not None for step, value in steps.items()}
        write_atomically(Path(folder) / "preprocessor_config.json", json.dumps(config, indent=2) + "\n")

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        if self.resize is None:
            return pixels
        height, width = pixels.shape[:2]
        if isinstance(self.resize, int):
            longer = int(self.resize * max(height, width) / min(height, width))
            size = (longer, self.resize) if width <= height else (self.resize, longer)
        else:
            size = self.resize
        grey = pixels.shape[2] == 1
        image = pillow().fromarray(pixels[..., 0] if grey else pixels).resize(size[::-1], resample=self.resample)
        return np.asarray(image)[..., None] if grey else np.asarray(image)


def load_preprocessor(folder: str | Path) -> Preprocessor:
    """The preprocessor that a model's folder asks for: of preprocessor_config.json, or of timm's config.json.

    Raises:
      DataError: there is neither, it cannot be read, or it asks for what is not known here.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = {"image_processor_type": "ViTImageProcessor", "size": 384}
    ...     _ = (Path(folder) / "preprocessor_config.json").write_text(json.dumps(config))
    ...     print(load_preprocessor(folder))
    resize to 384x384, bilinear; times 0.00392157; minus [0.5, 0.5, 0.5], over [0.5, 0.5, 0.5]
    """
    for name, read in (("preprocessor_config.json", _hugging_face), ("config.json", _timm)):
        path = Path(folder).expanduser() / name
        if path.is_file():
            with reading(path, "image processor's file"):
                config = json.loads(path.read_text(encoding="utf-8"))
                if name == "preprocessor_config.json" or "pretrained_cfg" in config:
                    return read(config)
    raise DataError(
        f"'{folder}' has no preprocessor_config.json, nor a config.json with timm's pretrained_cfg; "
        "write the steps yourself: tl.data.Preprocessor(resize=256, crop=(224, 224), ...)"
    )


def _hugging_face(config: Mapping[str, Any]) -> Preprocessor:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "ViTImageProcessor")
    style = kind
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        style = style.removesuffix(ending)
    if style not in _FAMILIES:
        raise DataError(f"the image processor {kind!r} is not known; those that are: {quoted(_FAMILIES)}")
    odd = [key for key in ("do_pad", "do_flip_channel_order", "do_reduce_labels") if config.get(key)]
    if odd:
        raise DataError(f"the image processor asks for {quoted(odd)}, which is not done here")
    family = _FAMILIES[style]
    resize, crop = _sizes(config.get("size") or family.size, "height" in family.size), None
    if style == "ConvNext" and isinstance(resize, int):
        small = resize < 384  # larger ones are warped to the square, nothing is cut
        crop = (resize, resize) if small else None
        resize = int(resize / (config.get("crop_pct") or 224 / 256)) if small else (resize, resize)
    cut = config.get("crop_size") or family.crop
    if cut and config.get("do_center_crop", family.crop is not None):
        crop = _pair(cut)
    mean, std = (config.get(key) or own for key, own in zip(("image_mean", "image_std"), family.colours))
    normal, resample = config.get("do_normalize", True), config.get("resample")
    return Preprocessor(
        resize if config.get("do_resize", True) else None,
        crop if config.get("do_resize", True) or config.get("do_center_crop") else None,
        family.resample if resample is None else int(resample),
        (config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else None,
        _numbers(mean) if normal else None,
        _numbers(std) if normal else None,
    )


def _timm(config: Mapping[str, Any]) -> Preprocessor:
    own = config["pretrained_cfg"]
    _, height, width = own.get("input_size", (3, 224, 224))
    share, mode = own.get("crop_pct") or 0.875, own.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise DataError(f"timm's crop_mode {mode!r} is not known; those that are: 'center', 'squash'")
    sizes = math.floor(height / share), math.floor(width / share)
    square = mode == "center" and height == width
    name = own.get("interpolation") or "bicubic"
    if name not in _FILTERS:
        raise DataError(f"timm's interpolation {name!r} is not known; those that are: {quoted(_FILTERS)}")
    mean, std = own.get("mean") or _IMAGENET[0], own.get("std") or _IMAGENET[1]
    resize = sizes[0] if square else sizes
    return Preprocessor(resize, (height, width), _FILTERS.index(name), 1 / 255, _numbers(mean), _numbers(std))


def _sizes(size: Any, square: bool) -> int | tuple[int, int]:
    if isinstance(size, int):
        return (size, size) if square else size
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        return int(size["shortest_edge"])
    return _pair(size)


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise DataError(f"a size should be a number, or have 'height' and 'width', or 'shortest_edge'; found {size!r}")


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def _pixels(image: Any, channels: int) -> np.ndarray:
    """uint8 `[H, W, C]` with one channel or three."""
    if hasattr(image, "getbands"):
        image = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    image = image[..., None] if image.ndim == 2 else image[..., :3]
    return np.repeat(image, channels, 2) if image.shape[2] == 1 else image


def _cut(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of the image; where it is smaller, with black around it."""
    border = [(max(0, new - old) + 1) // 2 for new, old in zip((height, width), pixels.shape)]
    after = [max(0, new - old) // 2 for new, old in zip((height, width), pixels.shape)]
    pixels = np.pad(pixels, (*zip(border, after), (0, 0)))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
