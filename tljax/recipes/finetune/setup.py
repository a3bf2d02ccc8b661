"""The pretrained model and the data set that it is fine-tuned on, brought to fit each other."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from tljax.checkpoints import open_weights
from tljax.checkpoints.hub import local_folder
from tljax.data import Source
from tljax.data.text import load_tokenizer
from tljax.data.text_source import TextSource, load_sentences
from tljax.models import Pretrained, load_pretrained
from tljax.models.recognition import Recognised, recognise
from tljax.recipes.finetune.images import load_images, preprocessor_in
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.options import SettingsError
from tljax.recipes.tasks import Task, with_validation


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is fine-tuned, and on what."""

    task: Task
    pretrained: Pretrained
    folder: pathlib.Path
    """Where the weights stand, with what lies beside them."""
    text: bool
    """Whether the model reads sentences."""

    @property
    def example(self) -> Any:
        """One example with a leading axis of 1."""
        return jax.tree.map(lambda a: a[:1], self.task.train.x)


def load_setup(settings: FinetuneSettings) -> Setup:
    """The model that `settings` name, with a head for the classes of their data, and the data as the model takes them.

    Raises:
      CheckpointError, ModelError, KeymapError: the weights cannot be read, or are of no known architecture.
      DataError, SettingsError: the data cannot be read, or do not suit the model or the options.
    """
    found = recognise(open_weights(settings.model), {})
    text = isinstance(found.example, Mapping)
    beside = local_folder(settings.model)
    folder = beside if beside.is_dir() else beside.parent
    task = _text_task(settings, folder) if text else _image_task(settings, found, folder)
    if task.train.task != "classes":
        raise SettingsError(f"{settings.data!r} has not one class per example; tljax finetune needs that")
    pretrained = load_pretrained(
        settings.model,
        num_classes=task.train.outputs,
        example=jax.tree.map(lambda a: a[:1], task.train.x),
        reinit=() if settings.keep_head else "head/**",
    )
    return Setup(task, pretrained, folder, text)


def _text_task(settings: FinetuneSettings, folder: pathlib.Path) -> Task:
    if settings.image_size or settings.mean:
        raise SettingsError(f"image_size, mean and std are for images; the model in {str(folder)!r} reads sentences")
    source = load_sentences(
        settings.data,
        load_tokenizer(folder),
        valid=settings.valid,
        test=settings.test,
        label=settings.label,
        text=settings.text,
        length=settings.max_length,
    )
    return _task(source, settings.seed)


def _image_task(settings: FinetuneSettings, found: Recognised, folder: pathlib.Path) -> Task:
    if settings.max_length or settings.text:
        raise SettingsError(f"max_length and text are for sentences; the model {settings.model!r} takes images")
    if not isinstance(found.example, jax.ShapeDtypeStruct) or len(found.example.shape) != 4:
        raise SettingsError(f"{settings.model!r} takes neither sentences nor images, {found.how}; use tl.fit")
    return _task(load_images(settings, found.example.shape[1:], preprocessor_in(folder)), settings.seed)


def _task(source: Source | TextSource, seed: int) -> Task:
    train, valid = with_validation(source.train, source.valid, seed)
    notes = source.notes
    if source.valid is None:
        notes = (*notes, f"validation part: {len(valid)} of the training examples")
    return Task(source.name, train, valid, source.test, notes)
