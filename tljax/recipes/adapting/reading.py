"""The two domains of an adaptation, read as its settings say; the target with labels or without."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tljax.checkpoints.hub import local_folder
from tljax.data import (
    load,
    load_sentences,
    load_text,
    load_texts,
    load_tokenizer,
    load_unlabelled,
    load_whole,
    standardise,
)
from tljax.data.error import DataError
from tljax.data.table import is_table
from tljax.models.recognition import Recognised
from tljax.recipes.adapting.domains import Domains, as_domains, in_form, in_one_form, standardised, tested_on
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.finetune.images import preprocessor_in
from tljax.recipes.options import SettingsError
from tljax.recipes.tasks import of_classes, relabelled


def read_domains(settings: AdaptSettings, found: Recognised | None) -> Domains:
    """Source and target in the form that the model takes, `found` in the weights; without, in that of the source.

    Raises:
      DataError, SettingsError: data that cannot be read, or that do not fit each other or the model.
    """
    domains = _read(settings, found)
    if not settings.bare:
        return domains
    test = None if settings.test is None else read_labelled(settings, domains, settings.test, settings.label)
    return tested_on(domains, test)


def _read(settings: AdaptSettings, found: Recognised | None) -> Domains:
    if found is not None and isinstance(found.example, Mapping):
        return _sentences(settings)
    if settings.text or settings.max_length:
        raise SettingsError("text and max_length are for sentences, which need a model that reads them: --weights")
    return _arrays(settings, found)


def read_labelled(settings: AdaptSettings, domains: Domains, spec: str, label: str | None) -> Any:
    """All examples of `spec` in the form of `domains`, which `settings` gave, labelled by their classes.

    There may be few, and none of some classes.

    Raises:
      DataError, SettingsError: data that cannot be read, do not fit, or have other classes.
    """
    train = domains.source.train
    if isinstance(train.x, Mapping):
        tokenizer, length = load_tokenizer(_beside(settings)), train.x["mask"].shape[1]
        data: Any = load_text(spec, tokenizer, label=label, text=settings.text, length=length)
        return _of_known_classes(data, settings, domains.classes)
    shape, statistics = train.x.shape[1:], domains.source.statistics
    given: dict[str, Any] = {"label": label if is_table(pathlib.Path(spec)) else None, "task": "classification"}
    if statistics is None:
        data = load_whole(spec, prepare=preprocessor_in(_beside(settings)), **given)
        return _of_known_classes(data, settings, domains.classes)
    size = (shape[0], shape[1]) if len(shape) == 3 else None
    data = in_form(load_whole(spec, size=size, features=domains.source.features, **given), shape)
    data = dataclasses.replace(data, x=standardise(data.x, statistics))
    return _of_known_classes(data, settings, domains.classes)


def _of_known_classes(data: Any, settings: AdaptSettings, classes: tuple[str, ...]) -> Any:
    """With `settings.classes` examples of others are left out; without they are an error."""
    return relabelled(data, classes) if settings.classes is None else of_classes(data, classes)


def _arrays(settings: AdaptSettings, found: Recognised | None) -> Domains:
    """Images, brought to the size and channels of the model or of the source; or rows of numbers."""
    shape = None
    prepare = None
    if found is not None:
        if not isinstance(found.example, jax.ShapeDtypeStruct) or len(found.example.shape) != 4:
            raise SettingsError(f"{settings.weights!r} takes neither sentences nor images, {found.how}; use tl.fit")
        prepare = None if settings.image_size else preprocessor_in(_beside(settings))
        shape = tuple(found.example.shape[1:])
    if prepare is not None:
        source = load(settings.source, label=_column(settings.source, settings), prepare=prepare)
        return as_domains(source, _target(settings, (), prepare=prepare), settings.classes, settings.seed)
    side = settings.image_size
    size = (side, side) if side else None if shape is None else (int(shape[0]), int(shape[1]))
    source = load(settings.source, label=_column(settings.source, settings), size=size)
    have = source.train.x.shape[1:]
    if size is None and len(have) == 3 and pathlib.Path(settings.target).is_dir():
        size = (have[0], have[1])  # pictures in files may be of any sizes
    target = _target(settings, source.features, size=size)
    wanted = None if shape is None else (*have[:2], shape[2])
    return standardised(as_domains(*in_one_form(source, target, wanted), settings.classes, settings.seed))


def _sentences(settings: AdaptSettings) -> Domains:
    """Sentences of both domains, as long as the longer of the two."""
    if settings.image_size:
        raise SettingsError(f"image_size is for images; the model in {settings.weights!r} reads sentences")
    tokenizer = load_tokenizer(_beside(settings))

    def labelled(spec: str, length: int | None) -> Any:
        return load_sentences(spec, tokenizer, label=settings.label, text=settings.text, length=length)

    def both(length: int | None) -> tuple[Any, Any]:
        return labelled(settings.source, length), _known_or_not(
            settings,
            lambda: labelled(settings.target, length),
            lambda: load_texts(settings.target, tokenizer, text=settings.text, length=length),
        )

    source, target = both(settings.max_length)
    lengths = {part.x["mask"].shape[1] for part in (source.train, target if settings.bare else target.train)}
    if len(lengths) > 1:
        source, target = both(max(lengths))
    return as_domains(source, target, settings.classes, settings.seed)


def _target(settings: AdaptSettings, features: tuple[str, ...], **form: Any) -> Any:
    """The target's arrays; `form` is what images are brought to."""
    return _known_or_not(
        settings,
        lambda: load(settings.target, label=_column(settings.target, settings), features=features, **form),
        lambda: load_unlabelled(settings.target, features=features, **form),
    )


def _known_or_not(settings: AdaptSettings, labelled: Callable[[], Any], unlabelled: Callable[[], Any]) -> Any:
    """The target with labels, or without where the settings say so; what can only be read without is told."""
    if settings.bare:
        return unlabelled()
    try:
        return labelled()
    except DataError as error:
        try:
            unlabelled()
        except DataError:
            raise error from None
        hint = "If the target has no labels: --unlabelled, or --test with a few that have"
        raise DataError(f"{error}. {hint}") from error


def _column(spec: str, settings: AdaptSettings) -> str | None:
    return settings.label if is_table(pathlib.Path(spec)) else None


def _beside(settings: AdaptSettings) -> pathlib.Path:
    """The folder that the weights stand in."""
    found = local_folder(str(settings.weights))
    return found if found.is_dir() else found.parent
