"""Renaming of source leaves."""

import re

import pytest

from tljax.tree import NoMatchError
from tljax.tree.globs import captures, filled
from tljax.tree.rename import RenameError, renamed

NAMES = ["encoder/layer_0/w", "encoder/layer_11/w", "encoder/norm/gamma", "head/w"]

TABLE = [
    (None, NAMES),
    ({"encoder": "backbone"}, ["backbone/layer_0/w", "backbone/layer_11/w", "backbone/norm/gamma", "head/w"]),
    ({"encoder/**": "backbone/**"}, ["backbone/layer_0/w", "backbone/layer_11/w", "backbone/norm/gamma", "head/w"]),
    ({"": "params"}, [f"params/{name}" for name in NAMES]),
    ({"encoder": ""}, ["layer_0/w", "layer_11/w", "norm/gamma", "head/w"]),
    ({"encoder/layer_*/**": "b/block_*/**"}, ["b/block_0/w", "b/block_11/w", "encoder/norm/gamma", "head/w"]),
    ({"**/gamma": "**/scale"}, ["encoder/layer_0/w", "encoder/layer_11/w", "encoder/norm/scale", "head/w"]),
    ({"{encoder/norm,head}/*": "top/*"}, ["encoder/layer_0/w", "encoder/layer_11/w", "top/gamma", "top/w"]),
    (
        {re.compile(r"encoder/layer_(\d+)/(.*)"): r"backbone/block_\1/\2", "encoder": "backbone"},
        ["backbone/block_0/w", "backbone/block_11/w", "backbone/norm/gamma", "head/w"],
    ),
    ({"head": None}, [*NAMES[:3], None]),
    ({"**/w": None, "encoder": "b"}, [None, None, "b/norm/gamma", None]),
    (str.upper, [name.upper() for name in NAMES]),
    (lambda name: None if name.startswith("head") else name, [*NAMES[:3], None]),
]


@pytest.mark.parametrize(("rename", "expected"), TABLE)
def test_renamed(rename, expected):
    assert list(renamed(rename, NAMES).values()) == expected
    assert list(renamed(rename, NAMES)) == NAMES


def test_a_prefix_ends_with_a_segment():
    assert renamed({"enc": "x"}, ["enc/w", "encoder/w"]) == {"enc/w": "x/w", "encoder/w": "encoder/w"}


def test_the_first_match_counts():
    assert renamed({"a/b": "first", "a": "second"}, ["a/b/w", "a/w"]) == {"a/b/w": "first/w", "a/w": "second/w"}


def test_a_key_that_matches_nothing_raises():
    with pytest.raises(NoMatchError, match=r"'encodr' matches none of the 4 source leaves; the nearest are 'enc"):
        renamed({"encodr": "backbone"}, NAMES)
    with pytest.raises(NoMatchError, match="layer"):
        renamed({re.compile("layer"): "x"}, NAMES)


@pytest.mark.parametrize(
    "rename",
    [{"encoder/*/**": "backbone/**"}, {"a/**": "b/*"}, {"{a,b/*}/w": "c/w"}, {"a": 3}, {3: "a"}],
)
def test_unreadable(rename):
    with pytest.raises(RenameError):
        renamed(rename, NAMES)


def test_the_function_must_give_names():
    with pytest.raises(RenameError, match="gave 3 for 'encoder/layer_0/w'"):
        renamed(lambda name: 3, NAMES)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("**/b/*", "b/c"), ("**/b/*", "x/y/b/c"), ("a?/[bc]*/**", "a1/cde/f/g"), ("**", "a/b"), ("a/**/**/b", "a/x/y/b")],
)
def test_captures_fill_the_same_glob(pattern, name):
    texts = captures(pattern, name)
    assert texts is not None
    assert filled(pattern, texts) == name


def test_what_is_no_renaming_is_told() -> None:
    with pytest.raises(RenameError, match=r"rename is a mapping.*found 'encoder'"):
        renamed("encoder", ["encoder/w"])
