"""Ranking models: features through the cache, the ranking, and fine-tuning of those at its top."""

import os
from collections.abc import Mapping
from typing import Any

from tljax.recipes.outcome import tell
from tljax.recipes.ranking.entries import Entry, common_labels, entry, labelled
from tljax.recipes.ranking.tuning import Tuning, finetuned_accuracy
from tljax.selection import Ranking, SelectionError
from tljax.selection.answer import answer
from tljax.selection.candidates import checked
from tljax.selection.estimate import estimate
from tljax.types import TljaxError


def rank_models(
    candidates: Mapping[str, Any],
    data: Any,
    *,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    finetune: int = 0,
    valid: Any = None,
    tuning: Tuning = Tuning(),  # noqa: B008  (an immutable value)
    subsets: int = 50,
    seed: int = 0,
    racing: bool = True,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Ranking:
    """Which pretrained model to start from for these labelled examples, with the probability that it is the best.

    Features are extracted once, with `cache` kept on disk. Every candidate is then measured on the same subsets of the
    examples, see `tljax.selection.rank_features`. With ``finetune=3`` the three that are likeliest to be the best are
    fine-tuned (LP-FT), and what that reaches takes the place of the estimate.

    Args:
      candidates: by name a pair `(model, params)`, what `load_pretrained` returns or a path that it takes, a
        `Candidate`, or features `[N, D]`.
      data: labelled examples ``(x, y)``, or a data set, preprocessed as every model wants them; or a mapping of these
        by candidate, with the same labels. Where all candidates are features, labels `[N]` are enough.
      known: by candidate what is known before the data: ``{"prior": 0.8, "upstream_accuracy": 0.76}``.
      finetune: how many are fine-tuned, at most; candidates that are features only cannot be.
      valid: labelled examples that judge fine-tuning, in the form of `data`; without them by cross-validation.
      tuning: how they are fine-tuned.
      subsets, seed, racing: as for `rank_features`.
      cache: a folder, as for `extract`.
      progress: whether to tell on stderr what is going on.

    Raises:
      SelectionError: candidates that do not fit the labels or one another (named), or nothing to fine-tune on.
      CheckpointError, ModelError, FeatureError: a model that cannot be read, or does not take the data.

    >>> import jax
    >>> import numpy as np
    >>> from tljax.models import mlp
    >>> x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    >>> y = (x[:, 0] > 0).astype("int32")
    >>> model = mlp((16,), num_classes=2)
    >>> params = model.init(jax.random.key(0), x)
    >>> found = rank_models({"random": (model, params), "pixels": x}, (x, y), progress=False)
    >>> sorted(row.name for row in found.standings)
    ['pixels', 'random']
    """
    if subsets < 2:
        raise SelectionError(f"subsets is {subsets}; the scatter between them needs 2 or more")
    if not candidates:
        raise SelectionError("there are no candidates to rank")
    strangers = sorted(set(known or {}) - set(candidates))
    if strangers:
        raise SelectionError(f"known speaks of {strangers[0]!r}, which is no candidate; there are {sorted(candidates)}")
    entries = {
        name: entry(name, value, labelled(_of(data, name)), (known or {}).get(name, {}), cache=cache, show=progress)
        for name, value in candidates.items()
    }
    judges = None if valid is None else {name: labelled(_of(valid, name)) for name in candidates}
    return rank_entries(
        entries,
        judges,
        finetune=finetune,
        tuning=tuning,
        subsets=subsets,
        seed=seed,
        racing=racing,
        progress=progress,
    )


def rank_entries(
    entries: Mapping[str, Entry],
    valid: Mapping[str, Any] | None,
    *,
    finetune: int,
    tuning: Tuning,
    progress: bool,
    **options: Any,
) -> Ranking:
    """`rank_models` for candidates whose features are there."""
    given = {name: found.candidate for name, found in entries.items()}
    ready, y, _ = checked(given, common_labels(entries))
    found = estimate(ready, y, tell=lambda line: tell(progress, line), **options)
    ranking = answer(found)
    if finetune < 1:
        return ranking
    measured: dict[str, tuple[float, int]] = {}
    for row in sorted(ranking.standings, key=lambda row: -row.p_best):
        if entries[row.name].model is not None and len(measured) < finetune:
            judge = None if valid is None else valid[row.name]
            title = f"fine-tuning {row.name}"
            try:
                measured[row.name] = finetuned_accuracy(entries[row.name], judge, tuning, title=title, show=progress)
            except TljaxError as error:
                raise SelectionError(f"candidate {row.name!r} cannot be fine-tuned: {error}") from error
    if not measured:
        raise SelectionError("candidates that are features cannot be fine-tuned; give (model, params) or finetune=0")
    return answer(found, measured=measured)


def _of(data: Any, name: str) -> Any:
    """The data of one candidate."""
    if not isinstance(data, Mapping):
        return data
    if name not in data:
        raise SelectionError(f"the data are given by candidate, and there are none for {name!r}")
    return data[name]
