"""What every reader returns: the leaves of a file described, and a way to fetch some of them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

LeafPath = tuple[str, ...]
"""A leaf's place as its container nests it: one key a level."""
Read = Callable[[Sequence[LeafPath]], dict[LeafPath, np.ndarray]]


class Source(NamedTuple):
    """An opened weight file. Nothing but its headers has been read, where the format allows that."""

    path: pathlib.Path
    format: str
    leaves: Mapping[LeafPath, jax.ShapeDtypeStruct]
    read: Read
    """Fetches the leaves at some paths; opens and closes the file itself."""
    separator: str
    """Joins the keys of a path into a name: "/" in Flax layouts, "." in torch layouts."""
    others: Mapping[LeafPath, str] = {}
    """What is no array (an epoch, the command line), as short text."""
    metadata: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
