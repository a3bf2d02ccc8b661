"""Names and subtrees: selectors, split and merge, graft, resize rules."""

from tljax.tree.graft import graft
from tljax.tree.paths import (
    PathError,
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
from tljax.tree.report import GraftError, GraftReport
from tljax.tree.resize import (
    ResizeError,
    Rule,
    head_rows,
    input_channels,
    kernel_size,
    position_grid,
    vocab_rows,
)
from tljax.tree.select import NoMatchError, Selector, Spec, select
from tljax.tree.split import MergeError, merge, split

__all__ = [
    "GraftError",
    "GraftReport",
    "MergeError",
    "NoMatchError",
    "PathError",
    "ResizeError",
    "Rule",
    "Selector",
    "Spec",
    "count",
    "from_named",
    "get",
    "graft",
    "head_rows",
    "input_channels",
    "is_array",
    "kernel_size",
    "leaf_names",
    "map_named",
    "merge",
    "named_leaves",
    "natural_key",
    "nbytes",
    "nearest",
    "position_grid",
    "select",
    "split",
    "vocab_rows",
]
