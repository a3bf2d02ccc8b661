"""New names for the leaves of a source, by prefix, glob, regular expression or function."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tljax.tree import globs
from tljax.tree.paths import nearest, quoted
from tljax.tree.select import NoMatchError
from tljax.types import TljaxError

Rename = Mapping[Any, "str | None"] | Callable[[str], "str | None"]
Step = Callable[[str], "tuple[str | None] | None"]


class RenameError(TljaxError):
    """A renaming that cannot be read."""


def renamed(rename: Rename | None, names: Iterable[str]) -> dict[str, str | None]:
    """The new name of every one of `names`; None for those that are to be left out.

    `rename` is a function of the name, or a mapping of which the first matching entry counts. Its keys are
    prefixes of whole segments, globs, whose wildcards stand for the same text in the value, or compiled
    regular expressions, whose groups do. The value None leaves out. Names without a match stay.

    Raises `NoMatchError` for an entry that matches nothing, `RenameError` for one that cannot be read.

    >>> renamed({"encoder": "backbone", "**/gamma": "**/scale"}, ["encoder/w", "stem/gamma", "head/bias"])
    {'encoder/w': 'backbone/w', 'stem/gamma': 'stem/scale', 'head/bias': 'head/bias'}
    >>> renamed({re.compile(r"layer(\\d+)/(.*)"): r"block_\\1/\\2"}, ["layer3/attention/kernel"])
    {'layer3/attention/kernel': 'block_3/attention/kernel'}
    """
    names = list(names)
    if rename is None:
        return {name: name for name in names}
    if not isinstance(rename, Mapping):
        if not callable(rename):
            raise RenameError(f"rename is a mapping, as {{'encoder': 'backbone'}}, or a function; found {rename!r}")
        return {name: _checked(rename(name), name) for name in names}
    steps = [(key, _step(key, value)) for key, value in rename.items()]
    for key, step in steps:
        if all(step(name) is None for name in names):
            text = key if isinstance(key, str) else key.pattern
            raise NoMatchError(
                f"rename: {key!r} matches none of the {len(names)} source leaves; "
                f"the nearest are {quoted(nearest(text, names) or names[:3])}"
            )
    return {name: next((new[0] for _, step in steps if (new := step(name))), name) for name in names}


def _step(key: Any, value: str | None) -> Step:
    if not (value is None or isinstance(value, str)):
        raise RenameError(f"rename: the value of {key!r} is a name or None; found {value!r}")
    if isinstance(key, re.Pattern):
        return lambda name: (found.expand(value) if value else value,) if (found := key.fullmatch(name)) else None
    if not isinstance(key, str):
        raise RenameError(f"rename: a key is a prefix, a glob or a compiled regex; found {key!r}")
    return _glob_step(key, value) if globs.is_glob(key) else _prefix_step(key, value)


def _prefix_step(key: str, value: str | None) -> Step:
    def step(name: str) -> tuple[str | None] | None:
        if key and name != key and not name.startswith(f"{key}/"):
            return None
        rest = name.removeprefix(key).removeprefix("/")
        return (None if value is None else "/".join(part for part in (value, rest) if part),)

    return step


def _glob_step(key: str, value: str | None) -> Step:
    wanted = globs.wildcards(value or "")
    for alternative in globs.alternatives(key):
        found = globs.wildcards(alternative)
        if value is not None and [w == "**" for w in found] != [w == "**" for w in wanted]:
            raise RenameError(
                f"rename: the wildcards {found} of {key!r} are not those {wanted} of {value!r}, in order; "
                "for anything else use a compiled regex with groups"
            )

    def step(name: str) -> tuple[str | None] | None:
        texts = globs.captures(key, name)
        if texts is None:
            return None
        return (None if value is None else globs.filled(value, texts),)

    return step


def _checked(new: Any, name: str) -> str | None:
    if not (new is None or isinstance(new, str)):
        raise RenameError(f"rename: the function gave {new!r} for {name!r}; expected a name or None")
    return new
