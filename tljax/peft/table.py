"""Sets of adapters: joined, counted, shown."""

from collections import defaultdict
from typing import Any

import numpy as np

from tljax.peft.adapter import Adapter, Adapters, PeftError
from tljax.peft.merge import check
from tljax.tree import count as parameters
from tljax.tree import named_leaves
from tljax.tree.paths import quoted
from tljax.tree.table import covering
from tljax.types import CONSTANTS_KEY, Params


def join(*adapters: Adapters) -> Adapters:
    """One set of all `adapters`, such as LoRA in the backbone and a full head.

    Raises `PeftError` for a path that two of them adapt.

    >>> from tljax.peft import Full
    >>> list(join({"head/bias": Full(1.0)}, {"head/kernel": Full(2.0)}))
    ['head/bias', 'head/kernel']
    """
    joined: Adapters = {}
    for part in adapters:
        twice = [name for name in part if name in joined]
        if twice:
            raise PeftError(f"two sets of adapters adapt {quoted(twice[:3])}; a leaf can have one adapter")
        joined |= part
    return joined


def count(adapters: Adapters) -> int:
    """The number of parameters that the adapters train; constants are none.

    >>> from tljax.peft import LoRA
    >>> import jax.numpy as jnp
    >>> count({"w": LoRA(jnp.ones((4, 2)), jnp.ones((2, 3)), {"scale": jnp.float32(1.0)})})
    14
    """
    leaves = named_leaves(dict(adapters))
    return parameters([leaf for name, leaf in leaves.items() if CONSTANTS_KEY not in name.split("/")])


def table(adapters: Adapters, params: Params) -> str:
    """One line for the adapters that are alike: kind, leaves, rank, scale, trained parameters; and their total.

    Raises `PeftError` for adapters of leaves that `params` does not have.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from tljax.peft import lora
    >>> base = {f"block_{i}": {"key": {"kernel": jnp.ones((16, 16))}} for i in range(12)}
    >>> print(table(lora(base, "**", key=jax.random.key(0), rank=2), base))
    kind    leaves  rank  scale    parameters  where
    lora        12     2      4           768  block_{0..11}/key/kernel
    trained                               768  20.00 % of the 3,840 of base and adapters
    """
    leaves = named_leaves(params)
    check(leaves, adapters)
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, adapter in adapters.items():
        groups[_facts(adapter)].append(name)
    lines = [_line("kind", "leaves", "rank", "scale", "parameters", "where")]
    for (kind, rank, scale), names in groups.items():
        where = ", ".join(covering(names, leaves)) if kind != "shared" else ", ".join(names)
        trained = count({name: adapters[name] for name in names})
        lines.append(_line(kind, len(names), rank, scale, f"{trained:,}", where))
    trained, base = count(adapters), parameters(params)
    share = f"{100 * trained / (base + trained):.2f} % of the {base + trained:,} of base and adapters"
    return "\n".join([*lines, _line("trained", "", "", "", f"{trained:,}", share)])


def _facts(adapter: Any) -> tuple[str, str, str]:
    """Kind, rank and scale, as far as there are."""
    if not isinstance(adapter, Adapter):
        return "shared", "", ""
    a, scale = getattr(adapter, "a", None), getattr(adapter, "constants", {}).get("scale")
    scales = sorted({float(s) for s in np.ravel(scale)}) if scale is not None else []
    return adapter.kind, "" if a is None else str(a.shape[-1]), ", ".join(f"{s:.4g}" for s in scales)


def _line(kind: Any, leaves: Any, rank: Any, scale: Any, trained: Any, where: str) -> str:
    return f"{kind:<8}{leaves:>6}{rank:>6}{scale:>7}{trained:>14}  {where}".rstrip()
