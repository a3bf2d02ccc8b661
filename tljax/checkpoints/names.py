"""The one rule of names.

A leaf's name is what the file calls it.  The tree nests it at "/" if any name in the file has one (Flax, big_vision,
orbax, msgpack), else at "." (torch, Hugging Face).  So ``layer1.0.conv1.weight`` is
``tree["layer1"]["0"]["conv1"]["weight"]``, which tljax calls ``layer1/0/conv1/weight``; joining at the same separator
gives the file's name back.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tljax.checkpoints.errors import CheckpointError, shown
from tljax.tree import from_named

MAX_NAME, MAX_DEPTH = 1000, 100
"""Longest and deepest name of a leaf; what is longer is noise, and would take quadratic time to nest."""


def separator_of(names: Iterable[str]) -> str:
    """What nests the flat names of a file: "/" if any name has one, as in Flax layouts, else ".", as in torch's.

    >>> separator_of(["Transformer/encoder_norm/scale", "cls"]), separator_of(["layer1.0.weight", "fc.bias"])
    ('/', '.')
    """
    return "/" if any("/" in name for name in names) else "."


def tree_name(name: str, separator: str) -> str:
    """The name in the tree of the leaf that a file calls `name`.

    >>> tree_name("layer1.0.weight", ".")
    'layer1/0/weight'
    """
    return name.replace(separator, "/")


def nest(leaves: Mapping[str, Any], separator: str, where: object = "the names") -> dict[str, Any]:
    """The nested dict of flat `leaves`, split at `separator`.

    Raises `CheckpointError` when one name is both a leaf and a subtree.

    >>> nest({"layer1.0.weight": 1, "fc.bias": 2}, ".")
    {'fc': {'bias': 2}, 'layer1': {'0': {'weight': 1}}}
    """
    try:
        return from_named({tree_name(name, separator): leaf for name, leaf in leaves.items()})
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}; read_weights(...).leaves has them by their flat names") from error


def check_names(names: Iterable[str], separator: str, where: object) -> None:
    """Raise `CheckpointError` for a name that no program would give a leaf."""
    for name in names:
        if len(name) > MAX_NAME or name.count(separator) >= MAX_DEPTH or not _is_text(name):
            raise CheckpointError(
                f"{where}: a leaf is called {shown(name)!r} ({len(name)} characters); expected text of up to "
                f"{MAX_NAME} characters, nested up to {MAX_DEPTH} deep"
            )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can smuggle in
        return False
    return True
