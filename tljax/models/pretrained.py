"""Any checkpoint to a model: recognised, built, renamed, grafted, and every leaf accounted for."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.checkpoints import LoadReport, WeightFile, Weights, open_weights, tree_name
from tljax.checkpoints.convention import match_convention
from tljax.checkpoints.keymap import listed
from tljax.models.recognition import Recognised, recognise
from tljax.models.wrapping import ModelError
from tljax.tree import GraftReport, Spec, from_named, get, graft, named_leaves, select
from tljax.types import Key, Model, Params


@dataclasses.dataclass(frozen=True)
class PretrainedReport:
    """What was loaded, how it was recognised, and what is not as in the file. `str` prints it all."""

    file: LoadReport
    graft: GraftReport
    recognised: str
    """The architecture, and by what it was told."""
    convention: str
    """The keymap that fits."""
    ignored: tuple[str, ...] = ()
    """Leaves of the file that the model has no use for, by their names."""
    missing: tuple[str, ...] = ()
    """With ``strict=False``: leaves that the file lacks, by their names."""
    unexpected: tuple[str, ...] = ()
    """With ``strict=False``: leaves of the file that no rule knows."""
    notes: tuple[str, ...] = ()
    """What differs between the file and the model, and what was done about it."""

    def __str__(self) -> str:
        lines = [f"{self.recognised}; names: {self.convention}", str(self.file), str(self.graft)]
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected), ("ignored", self.ignored)):
            lines += [f"{what} in the file ({len(names)}): {listed(names)}"] if names else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


class Pretrained(NamedTuple):
    """A model with pretrained parameters."""

    model: Model
    params: Params
    report: PretrainedReport
    config: Mapping[str, Any] | None
    """What config.json beside the weights says."""
    convention: str
    """The name of the keymap in `model.keymaps` that fits the file."""


def load_pretrained(
    path: str | os.PathLike[str],
    model: Model | None = None,
    *,
    num_classes: int | None = None,
    example: Any = None,
    convention: str | None = None,
    resize: Mapping[Any, Any] | None = None,
    reinit: Spec = (),
    strict: bool = True,
    key: Key | None = None,
    format: str | None = None,
    root: str | None = None,
    **options: Any,
) -> Pretrained:
    """The model and the parameters in a Hugging Face folder, or in a weight file of any format.

    The architecture is told by config.json, else by the names and shapes in the file. The names must be exactly those
    of one of the model's keymaps. All that differs from the file stands in the report.

    Args:
      path: a file or a folder, as for `load_weights`.
      model: instead of recognising it; any model with `keymaps`.
      num_classes: outputs of the head. By default the file's; with another number, the head is initialised afresh.
      example: a batch of inputs of which only shapes and dtypes matter; by default the architecture's usual one.
        Other channels or another image size than the file's go through the architecture's resize rules.
      convention: the name of the keymap to use, instead of the one that fits.
      resize: rules by selector, as for `graft`; they go before the architecture's own.
      reinit: leaves to initialise afresh.
      strict: raise when leaves are missing or unexpected; otherwise initialise or ignore them, and report it.
      key: for what is initialised afresh; by default ``jax.random.key(0)``.
      format, root: as for `load_weights`.
      **options: further arguments of the recognised architecture's constructor.

    Raises:
      CheckpointError: the file cannot be read.
      ModelError: the architecture is not known; the message lists those that are.
      KeymapError: leaves are missing or unexpected; the message lists them.
      GraftError: shapes differ and no rule was named; the message names the rule.

    >>> import tempfile
    >>> from tljax.models import export, resnet
    >>> model = resnet(8, num_classes=3, width=2)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, params, f"{folder}/resnet.safetensors", format="safetensors")
    ...     loaded = load_pretrained(f"{folder}/resnet.safetensors", num_classes=5)
    >>> loaded.report.recognised
    "cifar_resnet(depth=8, width=2, shortcut='A'), recognised by names and shapes"
    >>> loaded.report.notes[0][:47]
    'the head of the file has 3 classes, ours 5: our'
    """
    if model is not None and (options or num_classes is not None):
        argument = next(iter(options), "num_classes")
        raise ModelError(
            f"{argument}= is for an architecture that load_pretrained builds; {model.name} is built already"
        )
    file = open_weights(path, format=format, root=root)
    found = _given(model, file, example) if model is not None else recognise(file, options)
    example = found.example if example is None else example
    if example is None:
        raise _unknown_inputs(file, "path")
    classes = num_classes if num_classes is not None else found.num_classes or 2
    built = found.build(classes)
    names = tuple(named_leaves(_shapes(built, example)))
    match = match_convention(built.keymaps, names, tuple(file.specs), convention=convention, strict=strict)
    weights = _read(file, match.binding.expected)
    leaves = match.binding.import_(weights.leaves).leaves
    in_file = _classes(leaves)
    if model is None and num_classes is None and in_file not in (None, classes):
        built = found.build(in_file)
    params, grafted, notes = _graft(built, example, leaves, resize or {}, found.resize(example), reinit, strict, key)
    notes += found.notes
    if None not in (in_file, found.num_classes) and in_file != found.num_classes:
        notes.append(f"config.json says {found.num_classes} classes, the head of the file has {in_file}")
    if weights.report.nonfinite:
        notes.append(f"NaN or inf in {listed(list(weights.report.nonfinite))}")
    report = PretrainedReport(
        weights.report, grafted, found.how, match.convention,
        ignored=match.binding.useless(file.specs),
        missing=match.missing,
        unexpected=match.binding.unexpected(file.specs),
        notes=tuple(notes),
    )  # fmt: skip
    return Pretrained(built, params, report, file.config, match.convention)


def _read(file: WeightFile, names: Collection[str]) -> Weights:
    """The leaves of these names, and no others."""
    wanted = {tree_name(name, file.report.separator) for name in names}
    return file.read(lambda name, leaf: name in wanted)


def _given(model: Model, file: WeightFile, example: Any) -> Recognised:
    if example is not None:
        return Recognised(lambda classes: model, None, None, lambda _: {}, f"{model.name}, as given")
    try:
        found = recognise(file, {})
    except ModelError as error:
        raise _unknown_inputs(file, "path, model") from error
    return Recognised(lambda classes: model, found.example, None, found.resize, f"{model.name}, as given")


def _unknown_inputs(file: WeightFile, arguments: str) -> ModelError:
    return ModelError(
        f"{file.report.path}: the shapes of inputs cannot be told from the file; write load_pretrained({arguments}, "
        "example=jnp.zeros((1, 32, 32, 3))) with the shape of your own"
    )


def _shapes(model: Model, example: Any) -> Params:
    return jax.eval_shape(model.init, jax.random.key(0), example)


def _classes(leaves: Mapping[str, Any]) -> int | None:
    """The number of classes of the head in the file."""
    head = [leaves[name] for name in ("head/bias", "head/kernel") if name in leaves]
    return int(head[0].shape[-1]) if head else None


def _graft(
    model: Model,
    example: Any,
    leaves: Mapping[str, Any],
    asked: Mapping[Any, Any],
    usual: Mapping[Any, Any],
    reinit: Spec,
    strict: bool,
    key: Key | None,
) -> tuple[Params, GraftReport, list[str]]:
    """The parameters, with fresh values only where the file has none.

    The rules that were `asked` for must match a leaf; the `usual` ones of the architecture are there in case.
    """
    shapes = _shapes(model, example)
    wanted = named_leaves(shapes)
    differ = {name for name, leaf in leaves.items() if leaf.shape != wanted[name].shape}
    ruled = {name for spec in asked for name in select(spec).names(shapes)}
    for spec, rule in usual.items():
        ruled |= {name for name in _names(spec, shapes) if name in differ or (rule.reorders and name in leaves)}
    fresh = set(select(reinit).names(shapes))
    head, notes = _fresh_head(wanted, leaves, fresh | ruled)
    fresh |= head
    unfilled = [name for name in wanted if name not in leaves or name in fresh or name in ruled]
    start = _initialised(model, example, unfilled, key) if unfilled else shapes
    both = {**asked, **{spec: rule for spec, rule in usual.items() if spec not in asked}}
    rules = {spec: rule for spec, rule in both.items() if ruled & set(_names(spec, shapes)) - fresh}
    params, report = graft(start, from_named(leaves), reinit=sorted(fresh), resize=rules or None, strict=strict)
    notes += [f"{row.name} is {row.change}" for row in report.rows if row.action == "resized"]
    return params, report, notes


def _names(spec: Spec, tree: Params) -> list[str]:
    return select(spec).names(tree, required=False)


def _fresh_head(
    wanted: Mapping[str, Any], leaves: Mapping[str, Any], settled: Collection[str]
) -> tuple[set[str], list[str]]:
    """The leaves of the head if it cannot come from the file, and why."""
    head = {name for name in wanted if name.startswith("head/")}
    there = sorted(head & set(leaves))
    if head and not there:
        classes = max(wanted[name].shape[-1] for name in head if wanted[name].shape)
        return head, [f"the file has no head: ours, for {classes} classes, is initialised afresh"]
    differ = [name for name in there if leaves[name].shape != wanted[name].shape and name not in settled]
    if not differ:
        return set(), []
    old, new = leaves[differ[0]].shape[-1], wanted[differ[0]].shape[-1]
    return head, [
        f"the head of the file has {old} classes, ours {new}: ours is initialised afresh; "
        "to keep the classes that both have, write resize={'head/**': head_rows(...)}"
    ]


def _initialised(model: Model, example: Any, names: list[str], key: Key | None) -> Params:
    """The tree of shapes with fresh values for the leaves `names`, and nothing computed for the others."""
    key = jax.random.key(0) if key is None else key
    abstract = _shapes(model, example)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
    values = jax.jit(lambda key: {name: get(model.init(key, zeros), name) for name in names})(key)
    return from_named({**named_leaves(abstract), **values})
