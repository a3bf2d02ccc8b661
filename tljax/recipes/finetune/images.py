"""Images as a pretrained model wants them: by its preprocessor where there is one, else resized and standardised."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tljax.data import (
    Preprocessor,
    Source,
    Standardiser,
    fit_standardiser,
    load,
    load_preprocessor,
    load_whole,
    match_images,
    standardise,
)
from tljax.data.error import DataError
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.tasks import relabelled


def preprocessor_in(folder: pathlib.Path) -> Preprocessor | None:
    """The preprocessor that the model's folder asks for; None where it says nothing of images."""
    try:
        return load_preprocessor(folder)
    except DataError:
        if (folder / "preprocessor_config.json").is_file():
            raise
        return None


def load_images(settings: FinetuneSettings, shape: tuple[int, ...], preprocessor: Preprocessor | None) -> Source:
    """The images of `settings`, as a model takes them that was made for `shape`, (height, width, channels).

    With a preprocessor it alone decides, but for what the options say; else images are resized, brought to the model's
    channels, and standardised by the training images.
    """
    height, width = (settings.image_size or side for side in shape[:2])
    if preprocessor is not None and settings.image_size:
        preprocessor = dataclasses.replace(preprocessor, resize=(height, width), crop=None)
    if preprocessor is not None and settings.mean:
        preprocessor = dataclasses.replace(preprocessor, mean=settings.mean, std=settings.std)
    if preprocessor is not None:
        whole = _whole(settings, prepare=preprocessor)
        return dataclasses.replace(whole, notes=(*whole.notes, f"images: {preprocessor}"))
    whole = _whole(settings, size=(height, width))
    whole = whole.map(lambda data: match_images(data, height, width, shape[2]))
    return _standardised(settings, whole, f"images of {height}x{width}x{shape[2]}")


def _standardised(settings: FinetuneSettings, whole: Source, what: str) -> Source:
    if settings.mean:
        statistics, told = Standardiser(np.array(settings.mean), np.array(settings.std)), "as given"
    else:
        statistics, told = fit_standardiser(whole.train.x), "those of the training images"
    numbers = [", ".join(f"{v:.4g}" for v in np.ravel(values)) for values in statistics]
    note = f"{what}; mean {numbers[0]} and deviation {numbers[1]}, {told}"
    whole = whole.map(lambda data: dataclasses.replace(data, x=standardise(data.x, statistics)))
    return dataclasses.replace(whole, notes=(*whole.notes, note))


def _whole(settings: FinetuneSettings, **form: Any) -> Source:
    """The data with the parts that were given by name; `form` is what images are brought to."""
    whole = load(settings.data, label=settings.label, **form)
    for part in ("valid", "test"):
        if (spec := getattr(settings, part)) is not None:
            given = load_whole(spec, label=settings.label, task="classification", **form)
            given = relabelled(given, whole.train.classes)
            replaced: dict[str, Any] = {part: given, "notes": (*whole.notes, f"{part} part: {spec}")}
            whole = dataclasses.replace(whole, **replaced)
    return whole
