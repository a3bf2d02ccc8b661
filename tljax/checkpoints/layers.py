"""Rules of a keymap by the layer: Flax's names and layouts on our side, torch's on the other.

Each takes the pattern of the layer in our tree and in theirs.  Leaves that a layer lacks, such as a bias, do no harm.
"""

import numpy as np

from tljax.checkpoints.keymap import Extra, Rule
from tljax.checkpoints.layouts import CONV, DENSE, SAME, Layout, joined


def leaf(ours: str, theirs: str, layout: Layout = SAME) -> tuple[Rule, ...]:
    """One leaf.

    >>> leaf("backbone/embed/cls", "embeddings.cls_token")[0].theirs
    ('embeddings.cls_token',)
    """
    return (Rule((ours,), (theirs,), layout),)


def dense(ours: str, theirs: str, layout: Layout = DENSE) -> tuple[Rule, ...]:
    """A dense layer: kernel and bias, torch's weight and bias.

    >>> [rule.theirs for rule in dense("head", "fc")]
    [('fc.weight',), ('fc.bias',)]
    """
    return (*leaf(f"{ours}/kernel", f"{theirs}.weight", layout), *leaf(f"{ours}/bias", f"{theirs}.bias"))


def conv(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A convolution, plain, grouped or depthwise; also `PatchConv`, whose kernel has the same shape."""
    return dense(ours, theirs, CONV)


def norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    """LayerNorm or the like: scale and bias, torch's weight and bias."""
    return (*leaf(f"{ours}/scale", f"{theirs}.weight"), *leaf(f"{ours}/bias", f"{theirs}.bias"))


def batch_norm(ours: str, theirs: str) -> tuple[Rule, ...]:
    """BatchNorm: scale, bias and running statistics. `counters` says what torch keeps besides."""
    return (
        *norm(ours, theirs),
        *leaf(f"{ours}/batch_stats/mean", f"{theirs}.running_mean"),
        *leaf(f"{ours}/batch_stats/var", f"{theirs}.running_var"),
    )


def embedding(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A table of embeddings `[V, D]`."""
    return leaf(f"{ours}/embedding", f"{theirs}.weight")


def fused_dense(ours: tuple[str, ...], theirs: str) -> tuple[Rule, ...]:
    """Dense layers of equal sizes that are one layer in their file: ``(query, key, value)`` and ``qkv``.

    >>> kernel, bias = fused_dense(("b/query", "b/key", "b/value"), "b.qkv")
    >>> kernel.ours, kernel.theirs
    (('b/query/kernel', 'b/key/kernel', 'b/value/kernel'), ('b.qkv.weight',))
    """
    n = len(ours)
    return (
        Rule(tuple(f"{part}/kernel" for part in ours), (f"{theirs}.weight",), joined(n, inner=DENSE)),
        Rule(tuple(f"{part}/bias" for part in ours), (f"{theirs}.bias",), joined(n)),
    )


def counters(rules: tuple[Rule, ...]) -> tuple[Extra, ...]:
    """The ``num_batches_tracked`` that torch keeps beside the running statistics that `rules` name.

    Torch reads it only where a BatchNorm has no momentum, so on export it is 0.

    >>> counters(batch_norm("norm", "bn1"))[0].theirs
    'bn1.num_batches_tracked'
    """
    return tuple(
        Extra(rule.theirs[0].removesuffix("running_mean") + "num_batches_tracked", np.int64(0), rule.ours[0])
        for rule in rules
        if rule.theirs[0].endswith(".running_mean")
    )
