"""Names and subtrees: selectors, split and merge, graft, resize rules."""

from tljax.tree.paths import (
    count,
    from_named,
    get,
    is_array,
    leaf_names,
    map_named,
    named_leaves,
    natural_key,
    nbytes,
    nearest,
)
from tljax.tree.select import NoMatchError, Selector, Spec, select
from tljax.tree.split import MergeError, merge, split

__all__ = [
    "MergeError",
    "NoMatchError",
    "Selector",
    "Spec",
    "count",
    "from_named",
    "get",
    "is_array",
    "leaf_names",
    "map_named",
    "merge",
    "named_leaves",
    "natural_key",
    "nbytes",
    "nearest",
    "select",
    "split",
]
