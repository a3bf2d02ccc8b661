"""The forward passes of a step: one for each stream, but that streams which a term joins go through as one batch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tljax.objectives import Term
from tljax.objectives.stream import StreamError, called
from tljax.types import Array, Batch, Key, Model, Output, Params

Run = Callable[[Params, Any, int], tuple[Output, dict[str, Any], Params]]
"""`run(stats, x, number) -> (output, layers, stats)`; the number tells the passes of a step apart."""


def forward_streams(
    objective: Term, batches: Mapping[str, Batch], stats: Params, run: Run
) -> tuple[dict[str, Output], dict[str, dict[str, Any]], Params]:
    """The outputs and the tapped layers of every stream, and the statistics after all passes.

    Raises `StreamError` for a stream that is not there, and for streams that cannot be one batch.

    >>> from tljax.objectives import stateless
    >>> term = stateless(lambda scene: (0.0, {}), "t", "a", "b", joint=("a", "b"))
    >>> run = lambda stats, x, number: (Output(x - x.mean(), x), {}, stats)
    >>> batches = {"a": Batch(jnp.array([1.0])), "b": Batch(jnp.array([3.0, 5.0]))}
    >>> {name: out.logits.tolist() for name, out in forward_streams(term, batches, None, run)[0].items()}
    {'a': [-2.0], 'b': [0.0, 2.0]}
    """
    outputs: dict[str, Output] = {}
    layers: dict[str, dict[str, Any]] = {}
    for number, streams in enumerate(passes(objective)):
        names = [_known(name, batches, objective) for name in streams]
        x, sizes = _joined({name: batches[name].x for name in names})
        output, tapped, stats = run(stats, x, number)
        for name, piece, tap in zip(names, _pieces(output._replace(stats=None), sizes), _pieces(tapped, sizes)):
            outputs[name], layers[name] = piece, tap
    read = [_known(name, batches, objective) for name in objective.streams]
    return {name: outputs[name] for name in read}, layers, stats


def passes(objective: Term) -> list[tuple[str, ...]]:
    """The streams of each forward pass.

    >>> from tljax.objectives import cross_entropy, stateless
    >>> dann = stateless(lambda scene: (0.0, {}), "dann()", "source", "target", joint=("source", "target"))
    >>> passes(cross_entropy(stream="weak") + dann)
    [('weak',), ('source', 'target')]
    """
    together = tuple(name for name in objective.streams if name in objective.joint)
    done: list[tuple[str, ...]] = []
    for name in objective.streams:
        group = together if name in together else (name,)
        if group not in done:
            done.append(group)
    return done


def further_passes(
    model: Model, whole: Params, held: Any, usual: Key
) -> tuple[Callable[..., Output], Callable[..., Output]]:
    """`forward` and `evaluate`, the passes that terms may ask for; where the parameters that they give have None, those
    of `whole` are meant."""

    def completed(params: Params) -> Params:
        return jax.tree.map(lambda new, old: old if new is None else new, params, whole, is_leaf=_missing)

    def forward(params: Params, x: Any, key: Key | None = None) -> Output:
        return model.apply(completed(params), x, train=True, key=usual if key is None else key, frozen=held)

    def evaluate(params: Params, x: Any) -> Output:
        return model.apply(completed(params), x)

    return forward, evaluate


def _missing(leaf: Any) -> bool:
    return leaf is None


def _known(name: str, batches: Mapping[str, Batch], objective: Term) -> str:
    """By which name the step has a stream."""
    known = called(name, batches)
    if known not in batches:
        found = ", ".join(map(repr, batches)) or "none"
        raise StreamError(f"the objective {objective} reads the stream {name!r}; this step has: {found}")
    return known


def _joined(streams: Mapping[str, Any]) -> tuple[Any, list[int]]:
    parts = list(streams.values())
    sizes = [jax.tree.leaves(part)[0].shape[0] for part in parts]
    if len(parts) == 1:
        return parts[0], sizes
    shapes = {name: jax.tree.map(lambda leaf: list(leaf.shape[1:]), part) for name, part in streams.items()}
    if any(shape != next(iter(shapes.values())) for shape in shapes.values()):
        found = ", ".join(f"{name!r} has {shape}" for name, shape in shapes.items())
        raise StreamError(
            f"streams that go through the model as one batch have examples of one shape; {found}: bring them to one "
            "shape, or give each a pass of its own with separate(objective)"
        )
    return jax.tree.map(lambda *leaves: _shuffled_in(leaves, math.gcd(*sizes)), *parts), sizes


def _shuffled_in(leaves: Sequence[Array], groups: int) -> Array:
    """One batch out of several, the first group of each before the second: so every device of a mesh joins its own
    examples, and none are sent."""
    grouped = [leaf.reshape(groups, leaf.shape[0] // groups, *leaf.shape[1:]) for leaf in leaves]
    return jnp.concatenate(grouped, axis=1).reshape(-1, *leaves[0].shape[1:])


def _pieces(tree: Any, sizes: list[int]) -> list[Any]:
    """The examples of each of the batches that were joined, out of every leaf of `tree`."""
    if len(sizes) == 1:
        return [tree]
    groups = math.gcd(*sizes)
    ends = [sum(sizes[: i + 1]) // groups for i in range(len(sizes))]

    def piece(leaf: Array, size: int, end: int) -> Array:
        grouped = leaf.reshape(groups, -1, *leaf.shape[1:])
        return grouped[:, end - size // groups : end].reshape(size, *leaf.shape[1:])

    return [jax.tree.map(lambda a, n=n, end=end: piece(a, n, end), tree) for n, end in zip(sizes, ends)]
