"""Selectors: which leaves. One syntax wherever leaves are chosen: loading, freezing, rates, adapters, export.

    select("backbone/**") & ~select("**/{bias,scale}")

A pattern that matches nothing is a mistake, and raises: a typo must not freeze nothing in silence.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tljax.tree import globs
from tljax.tree.paths import flatten_named, is_array, named_leaves, nearest, quoted
from tljax.types import TljaxError

Test = Callable[[str, Any], bool]
Spec = Any
"""What `select` takes: a glob, a compiled regex, a predicate, a selector, or a list of these."""


class NoMatchError(TljaxError):
    """A selector that selects nothing."""


class Selector:
    """A set of leaves, told by name (and leaf). `&`, `|`, `~` combine selectors and whatever `select` takes.

    >>> print(select("backbone/**") & ~select("**/bias"))
    'backbone/**' & ~'**/bias'
    """

    def __init__(self, test: Test, text: str, parts: tuple["Selector", ...] = (), pattern: Any = None):
        self._test, self._text, self._parts, self._pattern = test, text, parts, pattern

    def matches(self, name: str, leaf: Any = None) -> bool:
        """Whether the leaf called `name` is selected.

        >>> select("**/kernel").matches("head/kernel")
        True
        """
        return self._test(name, leaf)

    def names(self, tree: Any, required: bool = True) -> list[str]:
        """The names of the selected leaves of `tree`, in natural order.

        Raises `NoMatchError`, if `required`, when a part of the selector matches nothing, or the whole.

        >>> select("**/kernel").names({"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}})
        ['a/kernel', 'b/kernel']
        """
        leaves = named_leaves(tree)
        found = [name for name, leaf in leaves.items() if self.matches(name, leaf)]
        if required:
            self._check(leaves, bool(found))
        return found

    def mask(self, tree: Any, required: bool = True) -> Any:
        """A tree of bools with the structure of `tree`: which leaves are selected. Raises as `names` does.

        >>> select("b").mask({"a": 1.0, "b": 2.0, "c": None})
        {'a': False, 'b': True, 'c': None}
        """
        chosen = set(self.names(tree, required))
        names, leaves, treedef = flatten_named(tree)
        return jax.tree.unflatten(treedef, [n in chosen and is_array(x) for n, x in zip(names, leaves)])

    def __or__(self, other: Spec) -> "Selector":
        return _any_of(self, select(other))

    def __ror__(self, other: Spec) -> "Selector":
        return _any_of(select(other), self)

    def __and__(self, other: Spec) -> "Selector":
        return _both(self, select(other))

    def __rand__(self, other: Spec) -> "Selector":
        return _both(select(other), self)

    def __invert__(self) -> "Selector":
        return Selector(lambda name, leaf: not self._test(name, leaf), f"~{_tight(self)}", (self,))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"select({self._text})"

    def _atoms(self) -> list["Selector"]:
        if self._pattern is not None:
            return [self]
        return [atom for part in self._parts for atom in part._atoms()]

    def _check(self, leaves: Mapping[str, Any], found: bool) -> None:
        for atom in self._atoms():
            if not any(atom.matches(name, leaf) for name, leaf in leaves.items()):
                raise NoMatchError(_no_match(atom, list(leaves)))
        if not found and self._atoms():
            raise NoMatchError(f"{self} selects nothing, though each of its parts matches something")


def select(spec: Spec) -> Selector:
    """The selector that `spec` means.

    A string is a glob over the segments of the name: ``*``, ``?``, ``[..]`` within a segment, ``**`` for any
    number of segments (also none), ``{a,b}`` for either. A compiled regular expression must match the whole
    name. A predicate takes the name, or the name and the leaf. A list or tuple means any of its members; an
    empty one selects nothing, on purpose.

    Raises `TypeError` for anything else.

    >>> select(["head/**", re.compile(r".*/bias")])
    select('head/**' | re.compile('.*/bias'))
    """
    if isinstance(spec, Selector):
        return spec
    if isinstance(spec, str):
        globs.compiled(spec)  # a glob that cannot be read raises here, where it was written
        return Selector(lambda name, leaf: globs.matches(spec, name), repr(spec), pattern=spec)
    if isinstance(spec, re.Pattern):
        return Selector(lambda name, leaf: spec.fullmatch(name) is not None, repr(spec), pattern=spec)
    if isinstance(spec, list | tuple):
        return _any_of(*map(select, spec))
    if callable(spec):
        text = getattr(spec, "__name__", repr(spec))
        return Selector(_predicate(spec), text, pattern=spec)
    raise TypeError(
        "a selector is a glob, a compiled regex, a predicate, or a list of these; "
        f"found {type(spec).__name__}: {spec!r}"
    )


def _any_of(*selectors: Selector) -> Selector:
    if len(selectors) == 1:
        return selectors[0]
    text = " | ".join(map(str, selectors)) or "[]"
    return Selector(lambda name, leaf: any(s.matches(name, leaf) for s in selectors), text, selectors)


def _both(left: Selector, right: Selector) -> Selector:
    def test(name: str, leaf: Any) -> bool:
        return left.matches(name, leaf) and right.matches(name, leaf)

    return Selector(test, " & ".join(map(_tight, (left, right))), (left, right))


def _tight(selector: Selector) -> str:
    return f"({selector})" if len(selector._parts) > 1 else str(selector)


def _predicate(f: Callable[..., Any]) -> Test:
    try:
        parameters = inspect.signature(f).parameters.values()
    except ValueError:  # some builtins tell nothing of themselves
        return lambda name, leaf: bool(f(name))
    positional = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return lambda name, leaf: bool(f(name, leaf))
    return lambda name, leaf: bool(f(name))


def _no_match(atom: Selector, names: list[str]) -> str:
    pattern = atom._pattern
    if not names:
        return f"{atom} matches nothing: the tree has no arrays"
    if not isinstance(pattern, str | re.Pattern):
        return f"the predicate {atom} is true of none of the {len(names)} leaves"
    text = pattern if isinstance(pattern, str) else pattern.pattern
    close = nearest(text, names) or names[:3]
    hint = _suggestion(pattern, names)
    return f"{atom} matches none of the {len(names)} leaves; the nearest are {quoted(close)}" + (
        f"; did you mean {hint}?" if hint else ""
    )


def _suggestion(pattern: str | re.Pattern[str], names: list[str]) -> str:
    """A pattern near to `pattern` that does match, as code; empty if none comes to mind."""
    if isinstance(pattern, re.Pattern):
        part = any(pattern.search(name) for name in names)
        return f"re.compile({f'.*{pattern.pattern}.*'!r}), since the whole name must match" if part else ""
    tail = pattern.rstrip("/*")
    for candidate in (f"{tail}/**", f"**/{pattern}", f"**/{tail}/**"):
        if tail and any(globs.matches(candidate, name) for name in names):
            return repr(candidate)
    subtrees = dict.fromkeys("/".join(n.split("/")[:i]) for n in names for i in range(1, n.count("/") + 1))
    close = nearest(tail, subtrees, 1) if tail != pattern else []
    return repr(f"{close[0]}/**") if close else ""
