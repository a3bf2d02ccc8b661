"""The weak and the strong view of the target, which some methods compare."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tljax.data import Augment, chain, on_levels, rand_augment, random_flip
from tljax.recipes.adapting.domains import Domains
from tljax.recipes.adapting.methods import Approach
from tljax.recipes.options import SettingsError
from tljax.recipes.tasks import shifts

OPERATIONS, MAGNITUDE = 2, 10
"""Of RandAugment, as in TLlib's FixMatch for domain adaptation."""


def augmentations(domains: Domains, flip: bool) -> Mapping[str, Augment]:
    """How each view of an image comes about; none for inputs that are no images of 1 or 3 channels.

    The weak one is shifted by up to an eighth, as in FixMatch, and by chance mirrored where `flip`; the strong one too,
    and changed by RandAugment. Black and white are the extreme values of a channel in the training parts of both
    domains; what comes in from outside has the source's mean.
    """
    if not _are_images(domains.source.train.x):
        return {}
    parts = [domains.source.train.x, domains.target.train.x]
    low = np.min([x.min((0, 1, 2)) for x in parts], axis=0)
    high = np.max([x.max((0, 1, 2)) for x in parts], axis=0)
    high = np.where(high > low, high, low + 1)
    fill = (parts[0].mean((0, 1, 2)) - low) / (high - low)
    shift = shifts(parts[0].shape[1:])
    weak = chain(shift, random_flip()) if flip else shift
    changed = on_levels(rand_augment(OPERATIONS, MAGNITUDE, fill=fill.tolist()), low, high)
    return {"weak": weak, "strong": chain(weak, changed)}


def require_images(methods: Iterable[Approach], domains: Domains) -> None:
    """Raises `SettingsError` where one of `methods` is for images alone, and the domains have none."""
    x = domains.source.train.x
    for method in methods:
        if method.images and not _are_images(x):
            found = f"examples of shape {list(x.shape[1:])}" if isinstance(x, np.ndarray) else "sentences"
            raise SettingsError(
                f"method {method.name!r} compares a weak and a strong view of images of 1 or 3 channels; found {found}"
            )


def _are_images(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.ndim == 4 and x.shape[3] in (1, 3)
