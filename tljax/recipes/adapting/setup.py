"""What is adapted: the domains as the model takes them, the model, and where each seed starts."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax.checkpoints import open_weights
from tljax.checkpoints.hub import local_folder
from tljax.data import load
from tljax.data.table import is_table
from tljax.data.text import load_tokenizer
from tljax.data.text_source import load_sentences
from tljax.models import Pretrained, load_pretrained, with_bottleneck
from tljax.models.recognition import Recognised, recognise
from tljax.recipes.adapting.domains import Domains, as_domains, in_one_form, noted, standardised
from tljax.recipes.adapting.models import model_of
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.finetune.images import preprocessor_in
from tljax.recipes.options import SettingsError
from tljax.tree import graft
from tljax.types import Model, Params

SMALL = 32
"""The longer side, in pixels, up to which images are small."""
FRESH = ("backbone/bottleneck/**", "head/**")
"""What is never taken from a file."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is adapted."""

    settings: AdaptSettings
    domains: Domains
    model: Model
    pretrained: Pretrained | None
    """What the weights are of, where there are any."""

    @functools.cached_property
    def starts(self) -> dict[int, Params]:
        """The parameters that each seed starts from, by its number from 0; all methods start there alike."""
        example = jax.tree.map(jnp.asarray, self.domains.example)
        keys = {s: jax.random.key(self.settings.seed + 1 + s) for s in range(self.settings.seeds)}
        fresh = {s: self.model.init(key, example) for s, key in keys.items()}
        if self.pretrained is None:
            return fresh
        kept = FRESH if self.settings.width else FRESH[1:]
        return {s: graft(params, self.pretrained.params, reinit=list(kept))[0] for s, params in fresh.items()}

    @property
    def about(self) -> str:
        """Where the parameters come from, for a person."""
        return "initialised at random" if self.pretrained is None else str(self.pretrained.report)


def load_setup(settings: AdaptSettings) -> Setup:
    """Data and model as `settings` say.

    Raises:
      CheckpointError, ModelError, KeymapError: weights that cannot be read, or are of no known architecture.
      DataError, SettingsError: data that cannot be read, or that do not fit each other or the model.
    """
    found = None if settings.weights is None else recognise(open_weights(settings.weights), {})
    if found is not None and isinstance(found.example, Mapping):
        domains = _sentences(settings)
    else:
        domains = _arrays(settings, found)
    classes = len(domains.classes)
    pretrained = None
    if settings.weights is not None:
        pretrained = load_pretrained(settings.weights, num_classes=classes, example=domains.example, reinit="head/**")
        model = pretrained.model
    else:
        model = model_of(settings.model or usual_model(domains.source.train.x.shape[1:]), classes)
    if settings.width:
        model = with_bottleneck(model, settings.width)
    return Setup(settings, noted(domains, settings.batch_size), model, pretrained)


def usual_model(shape: tuple[int, ...]) -> str:
    """The model where none is named, by the shape of an example.

    >>> usual_model((28, 28, 1)), usual_model((224, 224, 3)), usual_model((30,))
    ('lenet', 'resnet8', 'mlp(hidden=(64,))')
    """
    if len(shape) != 3:
        return "mlp(hidden=(64,))"
    return "lenet" if max(shape[:2]) <= SMALL else "resnet8"


def _arrays(settings: AdaptSettings, found: Recognised | None) -> Domains:
    """Images, brought to the size and channels of the model or of the source; or rows of numbers."""
    if settings.text or settings.max_length:
        raise SettingsError("text and max_length are for sentences, which need a model that reads them: --weights")
    shape = None
    prepare = None
    if found is not None:
        if not isinstance(found.example, jax.ShapeDtypeStruct) or len(found.example.shape) != 4:
            raise SettingsError(f"{settings.weights!r} takes neither sentences nor images, {found.how}; use tl.fit")
        prepare = None if settings.image_size else preprocessor_in(_beside(settings))
        shape = tuple(found.example.shape[1:])
    side = settings.image_size
    size = (side, side) if side else None if shape is None else (int(shape[0]), int(shape[1]))
    if prepare is not None:
        both = [
            load(spec, label=_column(spec, settings), prepare=prepare) for spec in (settings.source, settings.target)
        ]
        return as_domains(both[0], both[1], settings.classes, settings.seed)
    source = load(settings.source, label=_column(settings.source, settings), size=size)
    have = source.train.x.shape[1:]
    if size is None and len(have) == 3 and pathlib.Path(settings.target).is_dir():
        size = (have[0], have[1])  # pictures in files may be of any sizes
    target = load(settings.target, label=_column(settings.target, settings), size=size)
    wanted = None if shape is None else (*have[:2], shape[2])
    return standardised(as_domains(*in_one_form(source, target, wanted), settings.classes, settings.seed))


def _sentences(settings: AdaptSettings) -> Domains:
    """Sentences of both domains, as long as the longer of the two."""
    if settings.image_size:
        raise SettingsError(f"image_size is for images; the model in {settings.weights!r} reads sentences")
    tokenizer = load_tokenizer(_beside(settings))

    def read(spec: str, length: int | None) -> Any:
        return load_sentences(spec, tokenizer, label=settings.label, text=settings.text, length=length)

    both = [read(spec, settings.max_length) for spec in (settings.source, settings.target)]
    lengths = [found.train.x["mask"].shape[1] for found in both]
    if lengths[0] != lengths[1]:
        both = [read(spec, max(lengths)) for spec in (settings.source, settings.target)]
    return as_domains(both[0], both[1], settings.classes, settings.seed)


def _column(spec: str, settings: AdaptSettings) -> str | None:
    return settings.label if is_table(pathlib.Path(spec)) else None


def _beside(settings: AdaptSettings) -> pathlib.Path:
    """The folder that the weights stand in."""
    found = local_folder(str(settings.weights))
    return found if found.is_dir() else found.parent
