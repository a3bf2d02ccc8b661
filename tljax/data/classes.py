"""Some of the classes, as a person writes them; and the classes that labels found in a file stand for."""

import re
from collections.abc import Iterable, Sequence

from tljax.data.error import DataError
from tljax.tree.paths import nearest


def class_indices(spec: str | Iterable[str | int], names: Sequence[str]) -> list[int]:
    """The positions in `names` of the classes that `spec` asks for, in its order.

    `spec` is a list, or text with commas between the items: names, numbers, and ranges such as `"0-4"` that include
    both ends. A number is a name where every class is called by a number, and a position elsewhere.

    Raises:
      DataError: an item is no class (with the nearest names), comes twice, or there is none.

    >>> class_indices("0-2,dog", ("cat", "cow", "crab", "dog"))
    [0, 1, 2, 3]
    >>> class_indices("7-8", ("5", "6", "7", "8"))
    [2, 3]
    >>> class_indices("dgo", ("cat", "dog"))
    Traceback (most recent call last):
        ...
    tljax.data.error.DataError: no class 'dgo'; the nearest of the 2 classes: 'dog'
    """
    items = [part.strip() for part in spec.split(",")] if isinstance(spec, str) else list(spec)
    if isinstance(spec, str) and spec in names:  # a name may hold a comma
        items = [spec]
    chosen = [index for item in items if item != "" for index in _item(item, names)]
    if not chosen:
        raise DataError(f"no class is chosen by {spec!r}; write names or numbers, such as '0-4' or 'cat,dog'")
    twice = sorted({names[i] for i in chosen if chosen.count(i) > 1})
    if twice:
        raise DataError(f"class {twice[0]!r} is chosen twice by {spec!r}")
    return chosen


def _item(item: str | int, names: Sequence[str]) -> list[int]:
    span = None if item in names else re.fullmatch(r"(\d+)\s*-\s*(\d+)", str(item))
    if not span:
        return [_position(item, names)]
    first, last = (_position(end, names) for end in span.groups())
    if first > last:
        raise DataError(f"the range of classes {item!r} runs backwards; write the smaller end first")
    return list(range(first, last + 1))


def _position(item: str | int, names: Sequence[str]) -> int:
    name = str(item)
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and not all(other.isdecimal() for other in names) and int(name) < len(names):
        return int(name)
    near = nearest(name, names, 5) or names[:5]
    raise DataError(f"no class {name!r}; the nearest of the {len(names)} classes: {', '.join(map(repr, near))}")
