"""The modules of a peft file, read one by one: what all methods have in common."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from tljax.checkpoints.keymap import Link, listed
from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.full import Full
from tljax.peft.hf_axes import theirs_shape
from tljax.peft.hf_config import PeftConfig
from tljax.peft.hf_names import PREFIX, Names, Tensors
from tljax.peft.merge import shared_of

Parts = dict[str, np.ndarray]
Shape = tuple[int, ...]
TOKENS = "token_adapter.trainable_tokens_delta"


class Reader:
    """Reads a file into `adapters`. Every error names the file and the module."""

    def __init__(self, config: PeftConfig, names: Names, tensors: Tensors) -> None:
        self.config, self.names, self.tensors = config, names, tensors
        self.adapters: Adapters = {}

    def module(
        self, path: str, parts: Mapping[str, np.ndarray], method: Callable[["Reader", str, Parts], None]
    ) -> None:
        """The adapters of the module at `path`, of which `method` takes the parts that are its own.

        Raises `PeftError` for parts that are missing, too many, or of shapes that do not fit.
        """
        left = dict(parts)
        if TOKENS in left:
            self._tokens(path, left)
        elif set(left) - {"base_layer.bias", "base_layer.weight"}:
            method(self, path, left)
        if "base_layer.bias" in left:
            self._base_bias(path, left.pop("base_layer.bias"))
        if "base_layer.weight" in left:
            self._base_weight(path, left.pop("base_layer.weight"))
        if left:
            raise self.error(path, f"{self.config.method} has no use for {listed(sorted(left))} here")

    def whole(self, name: str, value: np.ndarray) -> tuple[str, ...]:
        """Whole copies for the leaf `name` of theirs; returns the names of ours."""
        link = self.link(name)
        shape = theirs_shape(link, self.names.leaves)
        if value.shape != shape:
            hint = "; for other classes, load the base with num_classes=" if link.ours[0].startswith("head/") else ""
            raise PeftError(f"{self.tensors.path}: {name!r} is {list(value.shape)}, in the base {list(shape)}{hint}")
        for leaf, part in zip(link.ours, link.layout.load([value])):
            self.add(leaf, Full(jnp.asarray(part)))
        return link.ours

    def added_bias(self, path: str, added: np.ndarray) -> None:
        """A bias that comes on top of the module's: a whole copy of their sum."""
        if f"{path}.bias" not in self.names.links:
            raise self.error(path, "lora_bias adds a bias to a layer that has none")
        base = self.theirs(self.link(f"{path}.bias"))
        self.check_size(path, "lora_B.bias", added, base.size)
        self.whole(f"{path}.bias", (base + added).astype(base.dtype))

    def take(self, path: str, left: Parts, *parts: str) -> list[np.ndarray]:
        """The parts, taken out of what is `left`."""
        lacking = [part for part in parts if part not in left]
        if lacking:
            raise self.error(path, f"the file lacks {listed(lacking)}; it has {listed(sorted(left))}")
        return [left.pop(part) for part in parts]

    def rank(self, path: str, a: np.ndarray) -> int:
        """The rank of a factor `[r, ...]`."""
        if a.ndim < 2 or a.shape[0] < 1:
            raise self.error(path, f"a factor is {list(a.shape)}; expected [rank, inputs]")
        return int(a.shape[0])

    def rows(self, shape: Shape, ins: Shape, outs: int) -> str:
        """Whether the rows of the weight are its outputs, as mostly, or its inputs, as in GPT-2's Conv1D."""
        if len(shape) != 2:
            return "outs"
        straight, turned = (outs, *ins) == shape, (outs, *ins) == shape[::-1]
        if straight and turned:
            turned = bool(self.config.get("fan_in_fan_out"))
        return "ins" if turned else "outs"

    def check_factors(self, path: str, a: np.ndarray, b: np.ndarray, shape: Shape) -> None:
        """That ``A`` `[r, ins...]` and ``B`` `[outs, r]` make a weight of `shape`."""
        rank = self.rank(path, a)
        if len(shape) > 2 and a.ndim > 2 and a.shape[1] > shape[1] and a.shape[1] % shape[1] == 0:
            raise self.error(path, GROUPED)
        flat = (rank, int(np.prod(shape[1:])))
        right = b.ndim >= 2 and b.shape[:2] == (shape[0], rank) and b.size == shape[0] * rank
        if a.shape not in ((rank, *shape[1:]), flat) or not right:
            wanted = [rank, *shape[1:]], [shape[0], rank, *(1,) * (len(shape) - 2)]
            raise self.error(
                path,
                f"factors {list(a.shape)} and {list(b.shape)} do not make its weight {list(shape)}; "
                f"expected {wanted[0]} and {wanted[1]}",
            )

    def check_size(self, path: str, part: str, value: np.ndarray, size: int) -> None:
        """That `value` is `size` numbers along one axis."""
        if value.size != size or max(value.shape, default=1) != size:
            raise self.error(path, f"{part} is {list(value.shape)}; expected {size} numbers")

    def weight(self, path: str) -> tuple[Link, Shape]:
        """The link of the module's weight, and its shape in PyTorch."""
        link = self.link(f"{path}.weight")
        return link, theirs_shape(link, self.names.leaves)

    def link(self, name: str) -> Link:
        """The link of a leaf of theirs."""
        if name not in self.names.links:
            raise PeftError(f"{self.tensors.path}: the model has no {name!r}")
        return self.names.links[name]

    def theirs(self, link: Link) -> np.ndarray:
        """The weight of the base in PyTorch's layout."""
        return np.asarray(link.layout.save([np.asarray(self.names.leaves[leaf]) for leaf in link.ours])[0])

    def add(self, leaf: str, adapter: Adapter) -> None:
        """One adapter for one leaf."""
        if leaf in self.adapters:
            raise PeftError(f"{self.tensors.path}: {leaf!r} would get two adapters")
        self.adapters[leaf] = adapter

    def error(self, path: str, what: str) -> PeftError:
        """An error of the module at `path`."""
        return PeftError(f"{self.tensors.path}: {PREFIX}{path}: {what}")

    def _tokens(self, path: str, left: Parts) -> None:
        """Rows of an embedding that were trained, in a whole copy of it."""
        rows = left.pop(TOKENS)
        asked = self.config.get("trainable_token_indices", [])
        if isinstance(asked, dict):
            asked = next((numbers for name, numbers in asked.items() if path.endswith(name)), [])
        link, shape = self.weight(path)
        if rows.shape != (len(asked), *shape[1:]) or any(not 0 <= n < shape[0] for n in asked):
            raise self.error(
                path,
                f"{list(rows.shape)} trained rows for {len(asked)} tokens of trainable_token_indices, in a table "
                f"{list(shape)}",
            )
        table = self.theirs(link).copy()
        table[asked] = rows
        self.whole(f"{path}.weight", table)

    def _base_bias(self, path: str, value: np.ndarray) -> None:
        """A trained bias; one that LoRA adds has been added to the base's."""
        link = self.link(f"{path}.bias")
        before = [self.adapters.pop(leaf, None) for leaf in link.ours]
        self.whole(f"{path}.bias", value)
        for leaf, old in zip(link.ours, before):
            if isinstance(old, Full):
                self.adapters[leaf] = Full(self.adapters[leaf].value + (old.value - self.names.leaves[leaf]))

    def _base_weight(self, path: str, value: np.ndarray) -> None:
        """The base's weight, which peft saves beside the adapter of an embedding: another base means a whole copy."""
        link, shape = self.weight(path)
        if value.shape != shape:
            raise self.error(path, f"base_layer.weight is {list(value.shape)}, in the base {list(shape)}")
        for leaf, part in zip(link.ours, link.layout.load([value])):
            if not np.array_equal(part, np.asarray(self.names.leaves[leaf])):
                adapter, base = self.adapters.get(leaf), jnp.asarray(part)
                merged = adapter.merge(base, shared_of(self.adapters)) if adapter is not None else base
                self.adapters[leaf] = Full(merged)


GROUPED = (
    "the layer is a grouped convolution, whose adapter in peft mixes the groups: it is a convolution beside the layer, "
    "not a change of its kernel, so there is nothing to merge here (nor does peft merge it)"
)
