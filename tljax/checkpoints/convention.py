"""Which of a model's keymaps fits a file: decided by the names in the file, never by guess."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from tljax.checkpoints.keymap import Binding, Keymap, KeymapError, listed


class Match(NamedTuple):
    """The keymap that fits a file."""

    convention: str
    binding: Binding
    missing: tuple[str, ...] = ()
    """With ``strict=False``: their names that the file lacks, besides an absent head."""


class _Fit(NamedTuple):
    convention: str
    binding: Binding
    missing: tuple[str, ...]
    """Their names that are not in the file; an absent head is not counted."""
    unexpected: tuple[str, ...]

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.unexpected) + len([n for n in self.binding.unmapped if not _in_head(n)])


def match_convention(
    keymaps: Mapping[str, Keymap],
    ours: Collection[str],
    theirs: Collection[str],
    *,
    convention: str | None = None,
    strict: bool = True,
) -> Match:
    """The keymap by which the names `theirs` of a file are exactly the leaves `ours` of a model.

    A file may lack the whole head. With ``strict=False`` it may lack or have anything: the keymap with the fewest
    faults is taken, if there is just one.

    Raises `KeymapError` when none fits, with what is `missing` and `unexpected` under the nearest one, and when two fit
    that differ.

    >>> from tljax.checkpoints.layers import dense
    >>> keymaps = {"old": Keymap(dense("head", "linear")), "new": Keymap(dense("head", "fc"))}
    >>> match_convention(keymaps, ["head/bias"], ["fc.bias"]).convention
    'new'
    """
    if not keymaps:
        raise KeymapError("the model has no keymaps: write model._replace(keymaps={'mine': Keymap(...)})")
    if convention is not None and convention not in keymaps:
        raise KeymapError(f"convention={convention!r}; the model has {', '.join(map(repr, keymaps))}")
    names = list(keymaps) if convention is None else [convention]
    fits = [_fit(name, keymaps[name].bind(ours), theirs) for name in names]
    least = min(fit.faults for fit in fits)
    best = [fit for fit in fits if fit.faults == least]
    if least and (strict or not set(best[0].binding.expected) & set(theirs)):
        error = KeymapError(_faults(best[0], names))
        error.missing, error.unexpected = best[0].missing, best[0].unexpected
        raise error
    if any(_table(fit) != _table(best[0]) for fit in best):
        which = ", ".join(repr(fit.convention) for fit in best)
        raise KeymapError(f"the names in the file fit {which} equally well; choose with convention=")
    return Match(best[0].convention, best[0].binding, best[0].missing)


def _fit(convention: str, binding: Binding, theirs: Collection[str]) -> _Fit:
    missing = binding.missing(theirs)
    head = [link for link in binding.links if all(_in_head(name) for name in link.ours)]
    in_head = {name for link in head for name in link.theirs}
    if in_head <= set(missing):
        missing = tuple(name for name in missing if name not in in_head)
    return _Fit(convention, binding, missing, binding.unexpected(theirs))


def _table(fit: _Fit) -> list[tuple[tuple[str, ...], tuple[str, ...], str]]:
    return [(link.ours, link.theirs, link.layout.name) for link in fit.binding.links]


def _in_head(name: str) -> bool:
    return name.startswith("head/")


def _faults(fit: _Fit, tried: list[str]) -> str:
    lines = [f"the names in the file are not those of the model; tried {', '.join(map(repr, tried))}"]
    lines[0] += f", of which {fit.convention!r} is nearest:" if len(tried) > 1 else ":"
    unmapped = [name for name in fit.binding.unmapped if not _in_head(name)]
    for what, names in (("missing", fit.missing), ("unexpected", fit.unexpected), ("without a rule", unmapped)):
        if names:
            lines.append(f"  {what} ({len(names)}): {listed(names, most=40)}")
    lines.append("strict=False loads what fits and reports the rest")
    return "\n".join(lines)
