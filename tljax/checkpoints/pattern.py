"""Patterns of names with numbers in them, for keymaps.

``{b:02}`` is a whole number written with two digits or more, ``{b}`` one written plainly, and ``{b+1}`` or ``{b-1}``
the same number counted from elsewhere.
"""

import functools
import re
from collections.abc import Mapping

from tljax.types import TljaxError

_FIELD = re.compile(r"\{(\w+?)([+-]\d+)?(?::0(\d+))?\}")


class KeymapError(TljaxError):
    """A keymap that contradicts itself, or names that do not fit it."""

    missing: tuple[str, ...] = ()
    """All names that a file lacks."""
    unexpected: tuple[str, ...] = ()
    """All names in a file that the keymap does not know."""


def match(pattern: str, name: str) -> dict[str, int] | None:
    """The numbers that `pattern` captures in `name`, or None when it does not match.

    >>> match("backbone/block_{b:02}/conv_{n}/kernel", "backbone/block_11/conv_1/kernel")
    {'b': 11, 'n': 1}
    >>> match("block_{b:02}", "block_3") is None
    True
    """
    found = _compiled(pattern).fullmatch(name)
    if found is None:
        return None
    numbers: dict[str, int] = {}
    for i, (key, shift, _) in enumerate(_FIELD.findall(pattern)):
        value = int(found[i + 1]) - int(shift or 0)
        if numbers.setdefault(key, value) != value:
            return None
    return numbers if fill(pattern, numbers) == name else None


def fill(pattern: str, numbers: Mapping[str, int]) -> str:
    """`pattern` with its fields replaced by `numbers`; the inverse of `match`.

    Raises `KeymapError` for a field that is not among them.

    >>> fill("encoder.layer.{b}.conv{n-1}", {"b": 11, "n": 1})
    'encoder.layer.11.conv0'
    """

    def number(field: re.Match[str]) -> str:
        key, shift, width = field.groups()
        if key not in numbers:
            raise KeymapError(
                f"pattern {pattern!r}: ours does not capture {key!r}, only {', '.join(numbers) or 'none'}"
            )
        return f"{numbers[key] + int(shift or 0):0{width or 1}}"

    return _FIELD.sub(number, pattern)


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    texts = _FIELD.split(pattern)[:: _FIELD.groups + 1]
    return re.compile(r"(\d+)".join(map(re.escape, texts)))
