"""Globs over names.

``*``, ``?`` and ``[..]`` stay within a segment, ``**`` is any number of segments, ``{a,b}`` is either and
``{0..11}`` any number from 0 to 11.
"""

import functools
import re

from tljax.types import TljaxError

_ANY_SEGMENTS = r"((?:[^/]*/)*)"
_WILDCARD = re.compile(r"\*\*|\*|\?|\[!?\]?[^\]]*\]")


class GlobError(TljaxError):
    """A glob that cannot be read."""


def matches(pattern: str, name: str) -> bool:
    """Whether the whole of `name` matches the glob.

    >>> matches("backbone/*/kernel", "backbone/stem/kernel"), matches("**/kernel", "backbone/stem/kernel")
    (True, True)
    >>> matches("head/*", "head/mlp/kernel"), matches("block_{0,1[0-2]}/**", "block_11/norm/scale")
    (False, True)
    """
    return any(regex.fullmatch(_closed(name)) for regex in compiled(pattern))


def captures(pattern: str, name: str) -> list[str] | None:
    """What the wildcards of the glob stand for in `name`, in order; None when it does not match.

    >>> captures("encoder/block_*/**", "encoder/block_3/attention/kernel")
    ['3', 'attention/kernel']
    """
    for regex in compiled(pattern):
        found = regex.fullmatch(_closed(name))
        if found:
            return [group.removesuffix("/") for group in found.groups()]
    return None


def filled(pattern: str, texts: list[str]) -> str:
    """The glob with its wildcards replaced, in order, by `texts`; the inverse of `captures`.

    >>> filled("backbone/block_*/**", ["3", "attention/kernel"]), filled("**/scale", [""])
    ('backbone/block_3/attention/kernel', 'scale')
    """
    rest = iter(texts)
    name = _WILDCARD.sub(lambda _: next(rest), pattern)
    return "/".join(segment for segment in name.split("/") if segment)


def wildcards(pattern: str) -> list[str]:
    """The wildcards of the glob, in order.

    >>> wildcards("encoder/block_*/**")
    ['*', '**']
    """
    return _WILDCARD.findall(pattern)


def is_glob(text: str) -> bool:
    """Whether `text` has a wildcard or an alternative.

    >>> is_glob("head/**"), is_glob("{head,neck}/bias"), is_glob("head/kernel")
    (True, True, False)
    """
    return bool(_WILDCARD.search(text)) or len(alternatives(text)) > 1


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> tuple[re.Pattern[str], ...]:
    """One regular expression for each alternative of the glob; they match names closed by a slash."""
    return tuple(re.compile("".join(map(_segment, alternative.split("/")))) for alternative in alternatives(pattern))


@functools.lru_cache(maxsize=4096)
def alternatives(pattern: str) -> tuple[str, ...]:
    """The globs without braces that together mean `pattern`.

    >>> alternatives("{a,b/{c,d}}/w"), alternatives("block_{08..10}")
    (('a/w', 'b/c/w', 'b/d/w'), ('block_08', 'block_09', 'block_10'))
    """
    start = pattern.find("{")
    if start < 0:
        if "}" in pattern:
            raise GlobError(f"glob {pattern!r}: a '}}' without its '{{'")
        return (pattern,)
    depth, options, begin = 0, [], start + 1
    for i in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[i], 0)
        if (depth == 1 and pattern[i] == ",") or depth == 0:
            options.append(pattern[begin:i])
            begin = i + 1
        if depth == 0:
            head, tail = pattern[:start], pattern[i + 1 :]
            options = [one for option in options for one in _range(option)]
            return tuple(full for option in options for full in alternatives(head + option + tail))
    raise GlobError(f"glob {pattern!r}: a '{{' without its '}}'")


def _range(option: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", option)
    if not ends:
        return [option]
    first, last = ends.groups()
    width = len(first) if first.startswith("0") else 0
    return [f"{i:0{width}}" for i in range(int(first), int(last) + 1)]


def _closed(name: str) -> str:
    return f"{name}/" if name else ""


def _segment(segment: str) -> str:
    if segment == "**":
        return _ANY_SEGMENTS
    if "**" in segment:
        raise GlobError(f"'**' must be a whole segment of the path, as in 'a/**/b'; found {segment!r}")
    out, end = "", 0
    for wildcard in _WILDCARD.finditer(segment):
        out += re.escape(segment[end : wildcard.start()]) + _one(wildcard.group())
        end = wildcard.end()
    return out + re.escape(segment[end:]) + "/"


def _one(wildcard: str) -> str:
    if wildcard in ("*", "?"):
        return {"*": "([^/]*)", "?": "([^/])"}[wildcard]
    body = wildcard[1:-1].replace("\\", "\\\\").replace("[", r"\[")
    return f"((?!/)[^{body[1:]}])" if body.startswith("!") else f"((?!/)[{body}])"
