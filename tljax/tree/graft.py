"""Graft a pretrained tree onto another: every leaf of both is loaded, changed by a rule, or accounted for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tljax.tree.advice import fault_text
from tljax.tree.paths import dtype_of, map_named, named_leaves
from tljax.tree.place import CastError, placed
from tljax.tree.rename import Rename, renamed
from tljax.tree.report import GraftError, GraftReport, Row
from tljax.tree.resize import ResizeError, Rule, rule_from, shape_text, suggestion
from tljax.tree.select import Selector, Spec, select
from tljax.types import TljaxError

Resize = Any
"""A resize rule (a `Rule`, its name, a function, or a list of these), or a mapping of selectors to rules."""


def graft(
    target: Any,
    source: Any,
    *,
    rename: Rename | None = None,
    drop: Spec = (),
    reinit: Spec = (),
    resize: Resize | None = None,
    strict: bool = True,
) -> tuple[Any, GraftReport]:
    """The tree `target` with the values of `source`, and a report of every leaf of both.

    The result has the structure, containers, shapes and dtypes of `target`; `source` may be of another kind.
    Leaves meet by name, after `rename`.

    - `rename`: new names for source leaves: a mapping of prefixes, globs or compiled regexes to new ones, as in
      ``{"encoder/**": "backbone/**"}``, or a function of the name (None leaves out).
    - `drop`: source leaves to ignore, by their own names.
    - `reinit`: target leaves that keep the target's values. What the source has under these names is ignored too.
    - `resize`: a rule for the leaves whose shapes differ, or a mapping of selectors of target leaves to rules. A rule
      named for a leaf is also applied where only the order of rows may differ.
    - `strict`: raise when a target leaf gets nothing or a source leaf is left over; otherwise keep and report them.

    No leaf of the result shares memory with `target` or `source`, so that a training step may donate the
    result's buffers while the others are still wanted, and neither tree is changed. Each result leaf is of
    the kind of the target's: on its devices if it was committed to some, a NumPy array if it was one.
    `target` may be abstract (`jax.ShapeDtypeStruct`) where the source fills it.

    Raises `GraftError` with all leaves concerned: shapes that differ without a rule, casts that would lose
    what the values mean (float to int, overflow), two source leaves for one target leaf, abstract leaves
    without a value, and, if `strict`, leaves missing or left over. Raises `NoMatchError` when a selector
    matches nothing.

    >>> import jax.numpy as jnp
    >>> source = {"encoder": {"w": jnp.ones((2, 3))}, "head": {"w": jnp.ones((3, 10))}}
    >>> target = {"backbone": {"w": jnp.zeros((2, 3))}, "head": {"w": jnp.zeros((3, 4))}}
    >>> params, report = graft(target, source, rename={"encoder": "backbone"}, reinit="head/**")
    >>> print(report)
    graft: 1 of 2 target leaves filled from the source, 6 of 18 parameters
      action         leaf        leaves  parameters
      renamed        backbone/w       1           6  from encoder/w
      reinitialised  head/w           1          12
      dropped        head/w           1          30  reinit
    """
    wanted, given = named_leaves(target), named_leaves(source)
    fresh = _chosen(reinit, target)
    claims, unused, faults = _claims(wanted, given, rename, _chosen(drop, source), select(reinit))
    rules = _rules(resize, target, fresh, {n: given[s] for n, s in claims.items()}, wanted)
    values, rows = {}, []
    for name, leaf in wanted.items():
        try:
            if name in claims:
                values[name], row = _filled(name, leaf, claims[name], given[claims[name]], rules(name))
            else:
                action = "reinitialised" if name in fresh else "kept"
                values[name], row = _own(name, leaf, action, strict)
            rows.append(row)
        except (GraftError, ResizeError, CastError) as error:
            faults.append(str(error))
    report = GraftReport((*rows, *unused))
    text = fault_text(report, faults, wanted, given, strict)
    if text:
        raise GraftError(text)
    return map_named(lambda name, leaf: values[name], target), report


def _chosen(spec: Spec, tree: Any) -> set[str]:
    return set(select(spec).names(tree))


def _claims(
    wanted: Mapping[str, Any],
    given: Mapping[str, Any],
    rename: Rename | None,
    dropped: set[str],
    reinit: Selector,
) -> tuple[dict[str, str], list[Row], list[str]]:
    """Which source leaf each target leaf gets, rows for the source leaves that go nowhere, and collisions."""
    claims: dict[str, str] = {}
    unused, faults = [], []
    for name, new in renamed(rename, given).items():
        leaf = given[name]
        if name in dropped or new is None:
            unused.append(_row("dropped", source=name, given=leaf, note="drop" if name in dropped else "rename"))
        elif reinit.matches(new, wanted.get(new, leaf)):
            unused.append(_row("dropped", source=name, given=leaf, note="reinit"))
        elif new not in wanted:
            unused.append(_row("left_over", source=name, given=leaf, note="" if new == name else f"renamed to {new}"))
        elif new in claims:
            faults.append(f"{new}: both {claims[new]!r} and {name!r} of the source go here; drop= one of them")
        else:
            claims[new] = name
    return claims, unused, faults


def _rules(
    resize: Resize | None, target: Any, fresh: set[str], pairs: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Callable[[str], Rule | None]:
    """The rule for a target leaf, by name."""
    if resize is None:
        return lambda name: None
    differ = {name for name, leaf in pairs.items() if np.shape(leaf) != np.shape(wanted[name])}
    if not isinstance(resize, Mapping):
        rule = rule_from(resize)
        if rule.reorders and not differ:
            raise GraftError(
                f"resize={rule.name}: no two shapes differ, so the rule has nothing to do; where only the order "
                f"of rows differs, name the leaves: resize={{'head/**': {rule.name}(...)}}"
            )
        return lambda name: rule if name in differ else None
    chosen: dict[str, Rule] = {}
    for spec, spelled in resize.items():
        rule = rule_from(spelled)
        names = _chosen(spec, target)
        if names & fresh:
            raise GraftError(f"{min(names & fresh)!r} is in resize= and in reinit=; a fresh leaf is not resized")
        for name in names:
            if rule.reorders or name in differ:
                chosen.setdefault(name, rule)
    return chosen.get


def _filled(name: str, leaf: Any, source_name: str, given: Any, rule: Rule | None) -> tuple[Any, Row]:
    """The value of the target leaf `leaf` from the source leaf `given`."""
    if isinstance(given, jax.ShapeDtypeStruct):
        raise GraftError(f"{name}: the source leaf {source_name!r} is abstract, it has no values")
    value = given if rule is None else _ruled(rule, name, given, leaf)
    if np.shape(value) != np.shape(leaf):
        found = f"{name}: source {shape_text(given)}, target {shape_text(leaf)}"
        if rule is not None:
            raise GraftError(f"{found}; the rule {rule} gave {shape_text(value)}")
        raise GraftError(f"{found}; {suggestion(name, given, leaf)}")
    cast = dtype_of(given) != dtype_of(leaf)
    action = "resized" if rule else "cast" if cast else "renamed" if name != source_name else "loaded"
    row = _row(action, name, leaf, source_name, given, str(rule or ""))
    return placed(name, value, leaf), row


def _ruled(rule: Rule, name: str, given: Any, leaf: Any) -> Any:
    try:
        return rule(name, given, leaf)
    except TljaxError:
        raise
    except Exception as error:
        error.add_note(f"in the resize rule {rule} for {name}: source {shape_text(given)}, target {shape_text(leaf)}")
        raise


def _own(name: str, leaf: Any, action: str, strict: bool) -> tuple[Any, Row]:
    """The target leaf's own value."""
    row = _row(action, name, leaf)
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return placed(name, leaf, leaf), row
    if action == "kept" and strict:
        return None, row  # reported as missing
    raise GraftError(f"{name}: is to keep the target's value, but the target is abstract; initialise it first")


def _row(
    action: str,
    target: str | None = None,
    leaf: Any = None,
    source: str | None = None,
    given: Any = None,
    note: str = "",
) -> Row:
    row = Row(action, target, source, note=note)
    if target is not None:
        row = dataclasses.replace(row, target_shape=tuple(np.shape(leaf)), target_dtype=str(dtype_of(leaf)))
    if source is not None:
        row = dataclasses.replace(row, source_shape=tuple(np.shape(given)), source_dtype=str(dtype_of(given)))
    return row
