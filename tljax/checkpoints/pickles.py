"""Reading what a torch pickle would do, without doing it.

`torch.load(weights_only=True)` runs no foreign code, but it believes more than it should: a list of storages that
leaves some out gives uninitialised memory for weights, `bytearray(10**11)` is a permitted call, and not every release
compares a storage's length with the bytes there are.  So the pickle is first followed symbolically, opcode by
opcode: which functions it names, and which storages of which size.  Nothing is called or built.
"""

import pickletools
from collections.abc import Mapping
from typing import Any, NamedTuple

from tljax.checkpoints.dtypes import BY_NAME
from tljax.checkpoints.errors import CheckpointError, shown

ITEMSIZES: Mapping[str, int] = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "UntypedStorage": 1,
}
"""Bytes an element, by storage class."""

DTYPES = tuple(name for name in BY_NAME if "int4" not in name)
"""The dtypes that torch and JAX share; both call them the same."""
_UTILS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
BUILDERS = frozenset(
    {"collections.OrderedDict", "torch.nn.parameter.Parameter", "torch.Size", "torch.device", "_codecs.encode"}
    | {f"torch._utils.{name}" for name in _UTILS}
    | {f"torch.{name}" for name in DTYPES}
    | {f"{module}.{name}" for name in ITEMSIZES for module in ("torch", "torch.cuda", "torch.storage")}
)
"""What the weights themselves are made of."""
INERT = frozenset(
    {
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "builtins.set",
        "__builtin__.set",
    }
)
"""Plain data that training scripts leave beside the weights. It is replaced by a stub that ignores its content."""


class Storage(NamedTuple):
    """A block of numbers that the tensors of a file look at."""

    itemsize: int
    numel: int

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.itemsize * self.numel


class Global(NamedTuple):
    """A function or class that a pickle names."""

    name: str


_OPAQUE, _MARK = object(), object()
"""A value we need not know; where a tuple or list begins."""
MAX_OPCODES = 5_000_000
"""Thirty times what a checkpoint of five thousand tensors with its optimiser takes."""
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING")


def follow(file: Any, path: Any) -> tuple[Any, dict[str, Storage]]:
    """Follow the one pickle that begins at the position of `file`, which has ``read``, ``readline`` and ``tell``.

    Returns the value at its end, as far as numbers, strings, tuples and lists go, and the storages it asks for.
    Raises `CheckpointError` for a name that is neither in `BUILDERS` nor `INERT`.

    >>> import io, pickle
    >>> follow(io.BytesIO(pickle.dumps((7, "a"), 2)), "a.pt")
    ((7, 'a'), {})
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    storages: dict[str, Storage] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count >= MAX_OPCODES:
            raise CheckpointError(f"{path}: the pickle has over {MAX_OPCODES} instructions; no weights need so many")
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                key, storage = _storage(stack.pop(), path)
                if storages.setdefault(key, storage).nbytes != storage.nbytes:
                    raise CheckpointError(f"{path}: storage {shown(key)!r} is given two sizes")
                stack.append(_OPAQUE)
            case "STOP":
                return stack.pop(), storages
            case _:
                stack.extend(_result(opcode, argument, _take(stack, opcode), path))
    raise CheckpointError(f"{path}: the pickle has no end: truncated")


def _result(opcode: Any, argument: Any, taken: list[Any], path: Any) -> list[Any]:
    """What an instruction puts on the stack for what it took from there."""
    match opcode.name:
        case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "EMPTY_TUPLE":
            return [tuple(taken)]
        case "EMPTY_LIST" | "APPEND" | "APPENDS":
            return [_extended(taken)]
        case "GLOBAL":
            return [_checked_global(argument, path)]
        case name if name in _NUMBERS or name in _TEXTS:
            return [argument]
    return [_MARK if x is pickletools.markobject else _OPAQUE for x in opcode.stack_after]


def _take(stack: list[Any], opcode: Any) -> list[Any]:
    """Pop what `opcode` takes, and return it in the order in which it was pushed, without the mark."""
    before = list(opcode.stack_before)
    above: list[Any] = []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not _MARK:
            above.append(top)
        before = before[: before.index(pickletools.markobject)]
    below = [stack.pop() for _ in before]
    return below[::-1] + above[::-1]


def _extended(taken: list[Any]) -> list[Any]:
    """The list under construction, with what is appended to it. Long lists come in batches of a thousand."""
    items = taken[0] if taken and isinstance(taken[0], list) else []
    items.extend(taken[1:])
    return items


def _checked_global(argument: Any, path: Any) -> Global:
    name = str(argument).replace(" ", ".")
    if name not in BUILDERS | INERT:
        raise CheckpointError(
            f"{path}: the pickle calls {shown(name)}, which could run code; only tensors and plain data are read. If "
            "you trust the file, save its weights alone with torch.save(model.state_dict(), ...) where it came from"
        )
    return Global(name)


def _storage(pid: Any, path: Any) -> tuple[str, Storage]:
    match pid:
        case ("storage" | b"storage", Global(kind), str(key), _, int(numel), *_) if numel >= 0:
            itemsize = ITEMSIZES.get(kind.rpartition(".")[2])
            if itemsize is not None:
                return key, Storage(itemsize, numel)
    raise CheckpointError(f"{path}: the pickle asks for {shown(pid)}; expected a storage of numbers")
