"""Weight files and peft folders combined: what `tljax merge` and `tljax adapters` do."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tljax.checkpoints import CheckpointError, read_weights, save_weights
from tljax.merging import MergingError, average, dare, interpolate, model_stock, slerp, task_arithmetic, ties
from tljax.models import Pretrained, export, load_pretrained
from tljax.peft import Adapters, Full, PeftError, concat, load_adapters, merge, save_adapters, table, truncate
from tljax.peft import dare as dare_adapters
from tljax.peft import ties as ties_adapters
from tljax.tree import map_named, named_leaves, nearest, select
from tljax.types import is_state

METHODS = ("uniform", "wise", "slerp", "stock", "task", "ties", "dare")
NEED_BASE = ("stock", "task", "ties", "dare")
COMBINATIONS = ("cat", "svd", "ties", "dare")


def merge_files(
    files: Sequence[str],
    out: str,
    *,
    method: str = "uniform",
    base: str | None = None,
    weights: Sequence[float] | None = None,
    alpha: float = 0.5,
    scale: float | None = None,
    density: float = 0.2,
    rate: float = 0.9,
    seed: int = 0,
    keep: Sequence[str] = (),
    force: bool = False,
) -> str:
    """Merge weight files of one architecture into one, in the format that the suffix of `out` names; what was done.

    Running statistics, torch's names of them included, are averaged whatever the method, and counters of batches stay
    those of the first file. `keep` are globs of leaves that stay as in `base`, or in the first file without one.

    Raises `MergingError` for options that do not go together and files that do not fit, `CheckpointError` for files
    that cannot be read or written.
    """
    _check(files, out, method, base, weights, force)
    trees = [read_weights(file).tree for file in files]
    first = read_weights(base).tree if base else trees[0]
    with jax.enable_x64(any(np.asarray(leaf).dtype == np.float64 for leaf in named_leaves(first).values())):
        chosen = [name for name in select(~select(list(keep)) if keep else "**").names(first) if not _counter(name)]
        learned = [name for name in chosen if not _statistic(name)]
        statistics = [name for name in chosen if _statistic(name)]
        apply = _methods(alpha, scale, density, rate, seed, weights)[method]
        merged = apply(first, trees, _only(learned))
        if statistics:
            means = named_leaves(average(trees, weights if method == "uniform" else None, where=_only(statistics)))
            merged = map_named(lambda name, leaf: means[name] if name in set(statistics) else leaf, merged)
    separator = "/" if any("/" in name for name in read_weights(files[0]).leaves) else "."
    save_weights(merged, out, separator=separator)
    return _told(files, out, method, learned, statistics, len(named_leaves(first)))


def adapters_table(folder: str, base: str) -> str:
    """What is in a peft folder, for the base model it was trained on."""
    loaded = load_pretrained(base)
    return str(load_adapters(folder, loaded.model, loaded.params).report)


def combine_adapters(
    folders: Sequence[str],
    out: str,
    *,
    base: str,
    weights: Sequence[float] | None = None,
    method: str = "cat",
    rank: int | None = None,
    density: float = 0.2,
    rate: float = 0.9,
    seed: int = 0,
    force: bool = False,
) -> str:
    """Combine peft folders of one base into one that peft reads: the weighted sum of what they add to the weights.

    "cat" is exact, at the sum of the ranks; "svd" the best of `rank`, by default the largest of the ranks; "ties" and
    "dare" as in `tljax.peft`.

    Raises `PeftError` for kinds that have no linear combination and for whole leaves that the base does not have.
    """
    if method not in COMBINATIONS:
        raise PeftError(f"--method {method}; expected one of {', '.join(COMBINATIONS)}")
    _check_folder(out, force)
    loaded = load_pretrained(base)
    sets = [load_adapters(folder, loaded.model, loaded.params).adapters for folder in folders]
    _check_whole(loaded, sets, base)
    most = rank or max(x.a.shape[-1] for adapters in sets for x in adapters.values() if hasattr(x, "a"))
    options: dict[str, Any] = {"params": loaded.params}
    if method in ("cat", "svd"):
        combined = concat(sets, weights, **options)
        combined = truncate(combined, most) if method == "svd" else combined
    elif method == "ties":
        combined = ties_adapters(sets, weights, rank=most, density=density, **options)
    else:
        combined = dare_adapters(sets, weights, rank=most, key=jax.random.key(seed), rate=rate, **options)
    save_adapters(combined, out, loaded.model, loaded.params, base_model=base, overwrite=force)
    return f"{table(combined, loaded.params)}\nwritten to {out}"


def export_adapters(folder: str, out: str, *, base: str, force: bool = False) -> str:
    """Merge the adapters of a peft folder into their base, and write that as a Hugging Face folder."""
    _check_folder(out, force)
    loaded = load_pretrained(base)
    adapters, report = load_adapters(folder, loaded.model, loaded.params)
    merged = merge(loaded.params, adapters)
    export(loaded.model, merged, out, config=loaded.config, convention=loaded.convention, overwrite=force)
    return f"{report}\nmerged into {base}, written to {out}"


def _check_folder(out: str, force: bool) -> None:
    path = pathlib.Path(out)
    if path.is_dir() and any(path.iterdir()) and not force:
        raise CheckpointError(f"{out} is not empty; give --force to replace all that is in it, or another name")


def _methods(
    alpha: float, scale: float | None, density: float, rate: float, seed: int, weights: Sequence[float] | None
) -> Mapping[str, Callable[[Any, list[Any], Any], Any]]:
    """Each method as a function of the base (or the first), the models, and what is merged."""

    def dropped(base: Any, models: list[Any], where: Any) -> Any:
        keys = jax.random.split(jax.random.key(seed), len(models))
        sparse = [dare(base, model, key=key, rate=rate, where=where) for model, key in zip(models, keys)]
        return task_arithmetic(base, sparse, _scales(scale, 1.0 / len(models), weights), where=where)

    return {
        "uniform": lambda _, models, where: average(models, weights, where=where),
        "wise": lambda _, models, where: interpolate(models[0], models[1], alpha, where=where),
        "slerp": lambda _, models, where: slerp(models[0], models[1], alpha, where=where),
        "stock": lambda base, models, where: model_stock(base, models, where=where),
        "task": lambda base, models, where: task_arithmetic(base, models, _scales(scale, 0.4, weights), where=where),
        "ties": lambda base, models, where: ties(base, models, density=density, scale=scale or 1.0, where=where),
        "dare": dropped,
    }


def _scales(scale: float | None, default: float, weights: Sequence[float] | None) -> Any:
    one = default if scale is None else scale
    return one if weights is None else [one * weight for weight in weights]


def _check(
    files: Sequence[str], out: str, method: str, base: str | None, weights: Sequence[float] | None, force: bool
) -> None:
    if method not in METHODS:
        near = nearest(method, METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise MergingError(f"--method {method}; expected one of {', '.join(METHODS)}{hint}")
    if method in NEED_BASE and base is None:
        raise MergingError(
            f"--method {method} merges differences from the pretrained weights; give them with --base FILE"
        )
    if method not in NEED_BASE and base is not None:
        raise MergingError(f"--method {method} reads no base; leave out --base, or choose {', '.join(NEED_BASE)}")
    if method in ("wise", "slerp") and len(files) != 2:
        raise MergingError(f"--method {method} goes from one file to another; found {len(files)} files")
    if weights is not None and (method not in ("uniform", "task", "dare") or len(weights) != len(files)):
        raise MergingError(f"{len(weights)} weights for {len(files)} files; one for each, with uniform, task or dare")
    if pathlib.Path(out).exists() and not force:
        raise CheckpointError(f"{out} exists; give --force to replace it, or another name")


def _check_whole(loaded: Pretrained, sets: Sequence[Adapters], base: str) -> None:
    """A whole leaf is combined as its difference from the base, which must not be a random start."""
    fresh = {*loaded.report.graft.names("kept"), *loaded.report.graft.names("reinitialised")}
    whole = [name for adapters in sets for name, x in adapters.items() if isinstance(x, Full) and name in fresh]
    if whole:
        raise PeftError(
            f"{whole[0]!r} is kept whole in the adapters and is not in {base}, so there is no difference to combine; "
            "give the base with the head that the adapters were trained with"
        )


def _statistic(name: str) -> bool:
    return is_state(name) or name.rpartition("/")[2] in ("running_mean", "running_var")


def _counter(name: str) -> bool:
    return name.rpartition("/")[2] == "num_batches_tracked"


def _only(names: Sequence[str]) -> Any:
    wanted = set(names)
    return select(lambda name: name in wanted) if wanted else select([])


def _told(
    files: Sequence[str], out: str, method: str, learned: Sequence[str], statistics: Sequence[str], total: int
) -> str:
    lines = [f"{method} of {', '.join(files)}", f"{len(learned)} leaves merged"]
    if statistics:
        lines.append(
            f"{len(statistics)} running statistics averaged: they do not fit merged weights, so measure them anew with "
            "tl.merging.recalibrate before use"
        )
    rest = total - len(learned) - len(statistics)
    lines += [f"{rest} leaves as they were"] if rest else []
    return "\n".join([*lines, f"written to {out}"])
