"""What is adapted: the domains as the model takes them, the model, and where each seed starts."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from tljax.checkpoints import open_weights
from tljax.data import Augment
from tljax.models import Pretrained, load_pretrained, with_bottleneck
from tljax.models.recognition import recognise
from tljax.recipes.adapting.domains import Domains, noted
from tljax.recipes.adapting.models import model_of
from tljax.recipes.adapting.reading import read_domains
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.adapting.views import augmentations, require_images
from tljax.recipes.options import SettingsError
from tljax.tree import graft, named_leaves
from tljax.types import Model, Params, TljaxError

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
    def views(self) -> Mapping[str, Augment]:
        """How the views of the target come about."""
        return augmentations(self.domains, self.settings.flip)

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
    domains = read_domains(settings, found)
    require_images(settings.approaches, domains)
    classes = len(domains.classes)
    pretrained = None
    if settings.weights is not None:
        pretrained = load_pretrained(settings.weights, num_classes=classes, example=domains.example, reinit="head/**")
        model = pretrained.model
    else:
        spec = settings.model or usual_model(domains.source.train.x.shape[1:])
        model = model_of(spec, classes)
        _check_model(model, spec, domains.example, classes)
    if settings.width:
        model = with_bottleneck(model, settings.width)
    return Setup(settings, noted(domains, settings.batch_size), model, pretrained)


def _check_model(model: Model, spec: str, example: Any, classes: int) -> None:
    """Raise `SettingsError` for a model that cannot look at an example, sees nothing of it, or has other outputs."""
    shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(example))
    advice = "choose another --model, or for images another --image-size"
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), jax.tree.map(jnp.asarray, example))
        logits = jax.eval_shape(model.apply, params, example).logits
    except TljaxError:
        raise
    except Exception as error:
        raise SettingsError(
            f"model {spec!r}: it fails on a batch of the data, {shapes}, with {type(error).__name__}: {error}; {advice}"
        ) from error
    for name, leaf in named_leaves(params).items():
        if name.endswith("kernel") and not leaf.size:
            found = f"{name!r}, {list(leaf.shape)}"
            raise SettingsError(f"model {spec!r}: nothing of a batch of the data, {shapes}, reaches {found}; {advice}")
    if logits.shape != (1, classes):
        raise SettingsError(
            f"model {spec!r}: it should give [B, {classes}], num_classes outputs for each example; found "
            f"{list(logits.shape)} for one"
        )


def usual_model(shape: tuple[int, ...]) -> str:
    """The model where none is named, by the shape of an example.

    >>> usual_model((28, 28, 1)), usual_model((224, 224, 3)), usual_model((30,))
    ('lenet', 'resnet8', 'mlp(hidden=(64,))')
    """
    if len(shape) != 3:
        return "mlp(hidden=(64,))"
    return "lenet" if max(shape[:2]) <= SMALL else "resnet8"
