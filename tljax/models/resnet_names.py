"""CIFAR ResNets in other projects' files."""

import re

import jax
import jax.numpy as jnp

from tljax.checkpoints.keymap import Keymap
from tljax.checkpoints.layers import batch_norm, conv, counters, dense
from tljax.models.family import Found, Shapes

_BLOCK = re.compile(r"layer([123])\.(\d+)\.conv1\.weight")


def keymaps() -> dict[str, Keymap]:
    """The names of the widely shared CIFAR-10 checkpoints in torch: ``layer2.0.conv1.weight``, ``linear.weight``."""
    block, theirs = "backbone/stage_{s}/block_{b:02}", "layer{s}.{b}"
    rules = (
        *conv("backbone/stem/conv", "conv1"),
        *batch_norm("backbone/stem/norm", "bn1"),
        *conv(block + "/conv_{n}", theirs + ".conv{n}"),
        *batch_norm(block + "/norm_{n}", theirs + ".bn{n}"),
        *conv(f"{block}/shortcut_conv", f"{theirs}.shortcut.0"),
        *batch_norm(f"{block}/shortcut_norm", f"{theirs}.shortcut.1"),
        *dense("head", "linear"),
    )
    return {"torch": Keymap(rules, counters(rules))}


def recognise(shapes: Shapes) -> Found | None:
    """Three stages of basic blocks after a 3x3 stem, with a head called linear.

    >>> recognise({"fc.weight": (1000, 512)}) is None
    True
    """
    blocks = {(int(m[1]), int(m[2])) for name in shapes if (m := _BLOCK.fullmatch(name))}
    stem = shapes.get("conv1.weight", ())
    per_stage = {sum(stage == s for stage, _ in blocks) for s in (1, 2, 3)}
    if len(per_stage) != 1 or 0 in per_stage or stem[2:] != (3, 3) or "linear.weight" not in shapes:
        return None
    shortcut = "B" if "layer2.0.shortcut.0.weight" in shapes else "A"
    options = {"depth": 6 * per_stage.pop() + 2, "width": stem[0], "shortcut": shortcut}
    return Found(options, jax.ShapeDtypeStruct((1, 32, 32, stem[1]), jnp.float32))
