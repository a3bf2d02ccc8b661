"""The layout of a leaf, told from its name, its rank and what stands beside it; where a doubt is left, it raises."""

import re
from collections.abc import Callable, Mapping

from tljax.peft.adapter import PeftError
from tljax.peft.layout import Layout

Shapes = Mapping[str, tuple[int, ...]]
VECTOR = Layout("vector", ins=0)

_VECTORS = re.compile(r"bias|scale|gamma|beta|offset|b")
_NORMS = re.compile(r"(.*norm.*|ln.*|bn.*)/(scale|weight|gamma|bias)", re.IGNORECASE)
_TABLES = re.compile(r"emb|wte|wpe|vocab", re.IGNORECASE)
_INTO_HEADS = re.compile(r"(query|key|value|qkv|q|k|v)(_proj)?")
_OUT_OF_HEADS = re.compile(r"o|out|(o|out|output)_proj|proj_out")


def infer(name: str, shapes: Shapes) -> Layout:
    """The layout of the leaf `name` of a tree whose leaves have `shapes`.

    A ``kernel`` is `[ins..., outs...]`, a ``weight`` `[outs..., ins...]` unless it is a table of embeddings. The axes
    of its bias are those of the outputs, after those of the stack of layers; norms near by tell of a stack as well.

    Raises `PeftError` where several layouts are left: three axes may be stacked layers, heads, or a 1-D convolution.

    >>> infer("attention/query/kernel", {"attention/query/kernel": (16, 4, 4), "attention/query/bias": (4, 4)})
    Layout(kind='dense', stack=0, ins=1, transposed=False)
    >>> infer("layers/dense/kernel", {"layers/dense/kernel": (12, 8, 16), "layers/dense/bias": (12, 16)}).stack
    1
    """
    parent, last = ("", *name.split("/"))[-2:]
    shape = shapes[name]
    if len(shape) < 2 or _VECTORS.fullmatch(last):
        return VECTOR
    transposed = last.startswith("weight")
    if len(shape) == 2 and transposed and _TABLES.search(parent):
        return Layout("embedding")
    if last == "embedding":
        return Layout("embedding", stack=len(shape) - 2)
    if len(shape) == 2:
        return Layout(transposed=transposed)
    found = _possible(len(shape), transposed) if last in ("kernel", "w", "weight") else []
    for test in (_beside_bias(name, shapes), _beside_norms(name, shapes), _by_name(parent, len(shape))):
        if len({layout[1:] for layout in found}) != 1:
            found = [layout for layout in found if test(layout)] or found
    if len({layout[1:] for layout in found}) != 1 or not _beside_bias(name, shapes)(found[0]):
        raise PeftError(_doubt(name, shape, found))
    heads = _INTO_HEADS.fullmatch(parent) or _OUT_OF_HEADS.fullmatch(parent)
    return found[-1] if heads else found[0]


def _possible(n: int, transposed: bool) -> list[Layout]:
    """What `n` axes can be: convolutions, then products with and without heads (of which ``weight`` knows none)."""
    found = []
    for stack in (0, 1):
        inner = n - stack
        found += [Layout("conv", stack, inner - 1, transposed)] if 3 <= inner <= 5 else []
        found += [Layout("dense", stack, 2)] if inner == 3 and not transposed else []
        found += [Layout("dense", stack, 1, transposed)] if 2 <= inner <= (2 if transposed else 4) else []
    return found


def _beside_bias(name: str, shapes: Shapes) -> Callable[[Layout], bool]:
    above, shape = name.rpartition("/")[0], shapes[name]
    bias = next((shapes[n] for n in (f"{above}/bias".lstrip("/"), f"{above}/b".lstrip("/")) if n in shapes), None)

    def fits(layout: Layout) -> bool:
        stack, _, outs = layout.parts(shape)
        window = (1,) * (layout.ins - 1)  # Equinox gives the bias of a convolution an axis for each of the window
        return bias is None or bias == stack + outs or (layout.kind == "conv" and bias == stack + outs + window)

    return fits


def _beside_norms(name: str, shapes: Shapes) -> Callable[[Layout], bool]:
    """The parameters of a norm have one axis, and one more where layers are stacked."""
    above = name
    while above:
        above = above.rpartition("/")[0]
        inside = f"{above}/" if above else ""
        axes = {len(s) for n, s in shapes.items() if n.startswith(inside) and _NORMS.fullmatch(_end(n))}
        if axes:
            return lambda layout: layout.stack + 1 in axes
    return lambda layout: True


def _by_name(parent: str, n: int) -> Callable[[Layout], bool]:
    if _INTO_HEADS.fullmatch(parent):
        most = 3 if parent == "qkv" else 2
        return lambda layout: layout.ins == 1 and 2 <= n - layout.stack - layout.ins <= most
    if _OUT_OF_HEADS.fullmatch(parent):
        return lambda layout: layout.ins == 2
    if "conv" in parent.lower() or n > 3:
        return lambda layout: layout.kind == "conv" and not layout.stack
    return lambda layout: True


def _end(name: str) -> str:
    return "/".join(name.split("/")[-2:])


def _doubt(name: str, shape: tuple[int, ...], found: list[Layout]) -> str:
    choices = " or ".join(dict.fromkeys(str(layout) for layout in found)) or "none that is known"
    return (
        f"the layout of {name!r} {list(shape)} cannot be told from names and shapes: {choices}. Say which axes are "
        f"inputs and outputs: layouts={{{name!r}: Layout(kind, stack=stacked axes, ins=input axes)}}"
    )
