"""Folders of images: by class, `<class>/*.png`, or `train/<class>/*.png` with others beside it; or in any order."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tljax.data.error import DataError
from tljax.data.files import SPLIT_NAMES, Inputs, Raw, reading
from tljax.tree.paths import natural_key, quoted

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # the Exif tag; 5 to 8 are turned by a quarter


class Picture(NamedTuple):
    """What the header of an image file says."""

    path: Path
    size: tuple[int, int]
    """Height and width, upright."""
    grey: bool
    deep: bool
    """More than 8 bits for each number."""
    alpha: bool


def read_folder(
    folder: Path, size: tuple[int, int] | None = None, prepare: Callable[[Any], np.ndarray] | None = None
) -> Raw:
    """The images of a folder, uint8 `[N, H, W, C]`, with the names of the class folders in natural order.

    Grey where every image is grey, else RGB; transparency is dropped, and of 16 bits the upper 8 are kept: 65535 is
    white. Images of other sizes are resized (bilinear, antialiased) to `size`, or else to the most common size. The
    notes say of how many images any of this is true. With `prepare` each Pillow image is made into an array by it, and
    nothing else is done to it.

    Raises:
      DataError: there are no class folders, one is empty, a file is no image (it is named), or its pixels are floats or
        integers of 32 bits, whose black and white nobody knows.
    """
    pillow()
    parts, classes = parts_and_classes(folder)
    files = {split: list(files_by_class(root, classes, split)) for split, root in parts.items()}
    y = {split: np.array([label for _, label in chosen], np.int32) for split, chosen in files.items()}
    x, notes = _read({split: [path for path, _ in chosen] for split, chosen in files.items()}, size, prepare)
    return Raw(x, y, classes, (*notes, *_ignored(folder, parts)), prepared=prepare is not None)


def read_images(
    folder: Path, size: tuple[int, int] | None = None, prepare: Callable[[Any], np.ndarray] | None = None
) -> Inputs:
    """All images in a folder and the folders below it, called by their paths in it, in natural order.

    As `read_folder` makes them. Raises `DataError` where there are none, or a file is no image (it is named).
    """
    pillow()
    files = _images(folder)
    if not files:
        raise DataError(f"'{folder}' holds no images ({', '.join(SUFFIXES)})")
    x, notes = _read({"all": files}, size, prepare)
    return Inputs(x["all"], tuple(f.relative_to(folder).as_posix() for f in files), notes, prepare is not None)


def _read(
    files: Mapping[str, Sequence[Path]], size: tuple[int, int] | None, prepare: Callable[[Any], np.ndarray] | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The images of every part, in one form, and how they came to it."""
    pictures = {split: list(map(_header, paths)) for split, paths in files.items()}
    if prepare is not None:
        return {split: _prepared(paths, prepare) for split, paths in files.items()}, ()
    everything = [picture for split in pictures.values() for picture in split]
    counts = Counter(picture.size for picture in everything)
    shape = size or max(counts, key=lambda s: counts[s])  # the first of several that are as common
    grey = all(picture.grey for picture in everything)
    x = {split: _stack(chosen, shape, grey) for split, chosen in pictures.items()}
    return x, tuple(_notes(counts, shape, size, everything, grey))


def _prepared(paths: Sequence[Path], prepare: Callable[[Any], np.ndarray]) -> np.ndarray:
    made = [prepare(open_image(path)) for path in paths]
    other = next((i for i, image in enumerate(made) if image.shape != made[0].shape), None)
    if other is not None:
        raise DataError(
            f"'{paths[other]}' becomes {list(made[other].shape)}, and '{paths[0]}' {list(made[0].shape)}: prepared "
            "images must be of one shape; resize to (height, width), or cut them"
        )
    return np.stack(made)


def _notes(
    counts: Counter, shape: tuple[int, int], size: tuple[int, int] | None, everything: list[Picture], grey: bool
) -> Iterator[str]:
    others = len(everything) - counts[shape]
    if others:
        why = "the size that is wanted" if size else "the most common size"
        yield f"{others} of {len(everything)} images were resized to {shape[0]}x{shape[1]}, {why}"
    greys = sum(picture.grey for picture in everything)
    if not grey and greys:
        yield f"{greys} of {len(everything)} images are grey and were read as RGB"
    deep, alpha = sum(picture.deep for picture in everything), sum(picture.alpha for picture in everything)
    if deep:
        yield f"{deep} of {len(everything)} images have 16 bits a pixel and were read as 8, 65535 as 255"
    if alpha:
        yield f"{alpha} of {len(everything)} images have an alpha channel, which was not read"


def _ignored(folder: Path, parts: dict[str, Path]) -> Iterator[str]:
    if folder not in parts.values():
        ignored = [d.name for d in _subfolders(folder) if d not in parts.values()]
        if ignored:
            yield f"beside {quoted(root.name for root in parts.values())} these folders were ignored: {quoted(ignored)}"


def _subfolders(folder: Path) -> list[Path]:
    return [d for d in sorted(folder.iterdir()) if d.is_dir() and not d.name.startswith((".", "__"))]


def _images(folder: Path) -> list[Path]:
    def hidden(file: Path) -> bool:
        return file.name.startswith(".") or any(d.startswith((".", "__")) for d in file.relative_to(folder).parts[:-1])

    found = (f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not hidden(f))
    return sorted((f for f in found if f.is_file()), key=lambda f: natural_key(f.relative_to(folder).as_posix()))


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of every part: those called train, val, test if they hold class folders, else `folder` itself."""
    folders = _subfolders(folder)
    parts = {}
    for split, names in SPLIT_NAMES.items():
        # A class may be called "train" as well: then it holds images, not folders.
        root = next((d for d in folders if d.name.lower() in names and _subfolders(d)), None)
        if root:
            parts[split] = root
    if "train" in parts:
        return parts
    if not folders:
        raise DataError(
            f"'{folder}' holds neither a folder of images per class nor idx files; to read another file give its "
            f"own name. Entries: {quoted(sorted(f.name for f in folder.iterdir())[:5])}"
        )
    return {"train": folder}


def parts_and_classes(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of every part, and the names of the classes in natural order."""
    parts = _parts(folder)
    return parts, tuple(sorted((d.name for d in _subfolders(parts["train"])), key=natural_key))


def files_by_class(root: Path, classes: tuple[str, ...], split: str) -> Iterator[tuple[Path, int]]:
    """The image files of a part with their classes, class after class."""
    found = {d.name: d for d in _subfolders(root)}
    extra = [name for name in found if name not in classes]
    if extra:
        raise DataError(f"'{root}' holds classes that the training part lacks: {quoted(extra[:5])}")
    for label, name in enumerate(classes):
        files = _images(found[name]) if name in found else []
        if not files and split == "train":
            raise DataError(f"class folder '{root / name}' holds no images ({', '.join(SUFFIXES)})")
        for path in files:
            yield path, label


def _header(path: Path) -> Picture:
    with reading(path, "image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata and palettes
        with pillow().open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = (width, height) if turned else (height, width)
            alpha = image.mode[-1] in "Aa" or "transparency" in image.info
            return Picture(path, size, image.mode in _GREY, image.mode.startswith("I"), alpha)


def _stack(pictures: list[Picture], shape: tuple[int, int], grey: bool) -> np.ndarray:
    out = np.empty((len(pictures), *shape, 1 if grey else 3), np.uint8)
    for i, picture in enumerate(pictures):
        out[i] = _decode(picture.path, shape, grey)
    return out


def _decode(path: Path, shape: tuple[int, int], grey: bool) -> np.ndarray:
    """One image, upright, uint8 `[H, W, 1 or 3]`."""
    image = open_image(path, grey)
    with reading(path, "image"):
        if image.size != shape[::-1]:
            image = image.resize(shape[::-1], pillow().Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[..., None] if grey else pixels


def open_image(path: Path, grey: bool = False) -> Any:
    """The picture in a file, upright, as a Pillow image of mode "RGB" or "L"; raises a `DataError` that names it."""
    from PIL import ImageOps

    with reading(path, "image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pillow().open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if opened.mode == "F" or (opened.mode == "I" and opened.format == "TIFF"):
                low, high = opened.getextrema()
                kind = "floats" if opened.mode == "F" else "integers of 32 bits"
                raise DataError(
                    f"the pixels of '{path}' are {kind}, here from {low:g} to {high:g}; which are black and white is "
                    "not known: save images with 8 or 16 bits a pixel, or arrays in an npz file"
                )
            if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion to 8 cuts off instead of scaling
                image = pillow().fromarray((np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8))
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("L" if grey else "RGB")


def pillow() -> Any:
    """Pillow's `Image`, or a `DataError` that names the extra."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images are read with Pillow: pip install 'tljax[data]'") from error
    return Image
