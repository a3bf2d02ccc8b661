"""What `--method` says, read: names of terms with weights and options, as ``dann + 0.1 * mcc(temperature=3)``.

Nothing of it is run as code: the text is parsed as Python writes expressions, and anything but sums of weighted names
with literal options is refused.
"""

import ast
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tljax.recipes.options import SettingsError

SCHEDULES = ("warm_up", "ramp_up")
"""What the value of an option may call."""
_WORDS = {"true": True, "false": False, "none": None}


class Call(NamedTuple):
    """A name with options, of which one may be a schedule, as ``dann(strength=warm_up(steps=200))``."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name

    def __repr__(self) -> str:  # as the value of an option
        return str(self)


class Part(NamedTuple):
    """A summand."""

    call: Call
    weight: float | None
    """None: the method's own."""

    def __str__(self) -> str:
        return str(self.call) if self.weight is None else f"{self.weight:g}*{self.call}"


def read_sum(text: str) -> tuple[Part, ...]:
    """The summands of ``text``. Hyphens in names, as in ``source-only``, are the underscores of Python.

    Raises `SettingsError` for what is no such sum.

    >>> [str(part) for part in read_sum("cdan(entropy=true) + 0.1*mcc")]
    ['cdan(entropy=True)', '0.1*mcc']
    >>> print(read_sum("dann(strength=warm_up(steps=200))")[0])
    dann(strength=warm_up(steps=200))
    >>> read_sum("dann / 2")
    Traceback (most recent call last):
    tljax.recipes.options.SettingsError: 'dann / 2' is no sum of methods: 'dann / 2' is not understood; write ...
    """
    return tuple(_part(node, text) for node in _summands(_parsed(text)))


def read_call(text: str) -> Call:
    """The name and the options of ``text``, a single one without weight; the name may be of any signs.

    >>> str(read_call("wide-resnet16-4(dropout=0.3)"))
    'wide-resnet16-4(dropout=0.3)'
    """
    name, bracket, inside = text.strip().partition("(")
    try:
        return _call(_parsed(f"_{bracket}{inside}"), text)._replace(name=name.strip())
    except SettingsError:
        raise SettingsError(
            f"{text!r} is no model with options; write a name, or name(option=value), as lenet(kernel=5)"
        ) from None


def _parsed(text: str) -> ast.expr:
    joined = re.sub(r"(?<=[^\W])-(?=[A-Za-z])", "_", text.strip())
    try:
        return ast.parse(joined, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _error(text, text) from None


def _summands(node: ast.expr) -> Iterable[ast.expr]:
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _summands(node.left)
        node = node.right
    yield node


def _part(node: ast.expr, text: str) -> Part:
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return Part(_call(node, text), None)
    first, second = node.left, node.right
    if isinstance(second, ast.Constant):
        first, second = second, first
    weight = first.value if isinstance(first, ast.Constant) else None
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise _error(ast.unparse(node), text)
    if not 0 < weight < 1e9:
        raise SettingsError(f"{text!r}: a weight is a number above 0 and below 1e9; found {weight:g}")
    return Part(_call(second, text), float(weight))


def _call(node: ast.expr, text: str) -> Call:
    function, options = node, {}
    if isinstance(node, ast.Call) and not node.args:
        function = node.func
        options = {word.arg: _literal(word.value, text) for word in node.keywords if word.arg}
        if len(options) != len(node.keywords):
            raise _error(ast.unparse(node), text)
    if not isinstance(function, ast.Name):
        raise _error(ast.unparse(node), text)
    return Call(function.id, options)


def _literal(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SCHEDULES:
        return _call(node, text)
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    if isinstance(node, ast.Name):
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise _error(ast.unparse(node), text) from None


def _error(part: str, text: str) -> SettingsError:
    return SettingsError(
        f"{text!r} is no sum of methods: {part!r} is not understood; write names with weights and options, as "
        "cdan+mcc or dann+0.1*mcc(temperature=3)"
    )
