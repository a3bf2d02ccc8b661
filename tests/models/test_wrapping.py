"""Where leaves stand is reversible, and what modules return is understood."""

import jax.numpy as jnp
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tljax.models.wrapping import (
    Layout,
    ModelError,
    as_output,
    check_frozen,
    find_head,
    is_split,
    origin,
    place,
)
from tljax.types import Output, is_state

NAMES = st.sampled_from(["stem", "norm", "head", "backbone", "kernel", "mean", "0", "params", "cache"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(tuple)
COLLECTIONS = st.sampled_from(["params", "batch_stats", "cache", "spectral_stats"])


@given(COLLECTIONS, PATHS, st.none() | st.just(()) | PATHS)
def test_origin_undoes_place(collection, path, head):
    assume(path != head)  # the head is a module, not a leaf
    layout = Layout(head)
    placed = place(collection, path, layout)
    assert placed[0] in ("backbone", "head")
    assert is_state("/".join(placed)) == (collection != "params")
    assert origin(placed, layout) == (collection, path)


@given(COLLECTIONS, st.sampled_from(["backbone", "head"]), PATHS)
def test_a_module_already_split_keeps_its_paths(collection, top, path):
    layout = Layout(("head",), split=True)
    placed = place(collection, (top, *path), layout)
    assert origin(placed, layout) == (collection, (top, *path))
    assert [part for part in placed if part not in ("batch_stats", collection)] == [
        part for part in (top, *path) if part != collection
    ]


@pytest.mark.parametrize(
    ("collection", "path", "expected"),
    [
        ("params", "fc/out/kernel", "head/kernel"),
        ("params", "fc/other/kernel", "backbone/fc/other/kernel"),
        ("params", "scale", "backbone/scale"),
        ("batch_stats", "fc/out/norm/mean", "head/norm/batch_stats/mean"),
        ("batch_stats", "mean", "backbone/batch_stats/mean"),
        ("cache", "attention/index", "backbone/attention/batch_stats/cache/index"),
    ],
)
def test_where_leaves_stand(collection, path, expected):
    assert "/".join(place(collection, tuple(path.split("/")), Layout(("fc", "out")))) == expected


def test_the_marker_is_no_name_for_a_module():
    with pytest.raises(ModelError, match=r"'a/batch_stats/kernel' has a part called 'batch_stats'.*rename"):
        place("params", ("a", "batch_stats", "kernel"), Layout())


def test_head_found_or_named():
    called = {(): 0, ("neck",): 0, ("decoder", "classifier"): 0}
    assert find_head("decoder/classifier", called, ("neck",), False) == Layout(("decoder", "classifier"))
    assert find_head(None, called, ("neck",), False) == Layout(("neck",))
    assert find_head(None, called, None, False) == Layout(None)
    assert find_head(None, called, ("neck",), True) == Layout(("head",), split=True)
    with pytest.raises(ModelError, match=r"'decoder/clasifier'.*nearest are 'decoder/classifier'"):
        find_head("decoder/clasifier", called, None, False)
    assert not is_split([("backbone", "w"), ("head", "w"), ("temperature",)])


def test_what_modules_return():
    logits, features, head_input = jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((2, 5, 6))
    for result in [(logits, features), [logits, features], {"logits": logits, "features": features}]:
        assert as_output(result, head_input) == (logits, features, None)
    assert as_output(Output(logits, features, {}), head_input) == (logits, features, None)
    assert as_output(logits, head_input).features.shape == (2, 30)
    assert as_output({"logits": logits, "loss": 0.0}, None) == (logits, logits, None)
    for bad, found in [
        ((logits,) * 3, "tuple of 3"),
        ({"out": logits}, "a dict with 'out'"),
        (None, "NoneType"),
    ]:
        with pytest.raises(ModelError, match=f"returned {found}; expected logits"):
            as_output(bad, None)


def test_frozen_names_are_statistics():
    names = ["backbone/norm/batch_stats/mean", "backbone/norm/scale"]
    check_frozen(frozenset(), names)
    with pytest.raises(ModelError, match=r"'backbone/norm/scale' is not a statistic.*'backbone/norm/batch_stats/mean'"):
        check_frozen({"backbone/norm/scale"}, names)
    with pytest.raises(ModelError, match="it carries no statistics"):
        check_frozen({"backbone/norm/scale"}, names[1:])
