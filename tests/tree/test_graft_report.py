"""The report accounts for every leaf of both trees once, and reads well."""

import json
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.tree import GraftError, GraftReport, count, from_named, graft, named_leaves, position_grid, select
from tljax.tree.report import ACTIONS, Row
from tljax.tree.table import covering

NAMES = [f"{a}/{b}_{i}/{c}" for a in ("backbone", "head") for b in ("x", "y") for i in (0, 9, 10) for c in ("w", "b")]
subsets = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


def tree_of(names, value):
    return from_named({name: np.full(len(name) % 4 + 1, value, np.float32) for name in names})


@st.composite
def grafts(draw):
    target, source = draw(subsets), draw(subsets)
    drop = draw(st.lists(st.sampled_from(source), unique=True))
    reinit = draw(st.lists(st.sampled_from(target), unique=True))
    moved = draw(st.sampled_from([None, *source]))
    return target, source, drop, reinit, moved


@settings(max_examples=150, deadline=None)
@given(grafts())
def test_every_leaf_is_accounted_for_once_on_each_side(case):
    target, source, drop, reinit, moved = case
    rename = {moved: "elsewhere"} if moved else None
    params, report = graft(
        tree_of(target, 0), tree_of(source, 1), drop=drop, reinit=reinit, rename=rename, strict=False
    )
    assert sorted(r.target for r in report.rows if r.target is not None) == sorted(target)
    assert sorted(r.source for r in report.rows if r.source is not None) == sorted(source)
    by_target = {r.target: r for r in report.rows}
    for name, leaf in named_leaves(params).items():
        row = by_target[name]
        expected = 0 if row.action in ("reinitialised", "kept") else 1
        assert (row.source is None) == (expected == 0)
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, expected))
    for row in report.rows:
        if row.action == "reinitialised":
            assert row.target in reinit
        elif row.action == "kept":
            assert row.target not in reinit
            assert row.target not in source or row.target in drop or row.target == moved
        elif row.action == "dropped":
            assert row.source in drop or row.source in reinit
        elif row.action == "left_over":
            assert row.source == moved or row.source not in target
    assert set(report.leaves) == set(report.parameters) == set(ACTIONS)
    assert sum(report.leaves.values()) == len(report.rows)
    filled = sum(r.parameters for r in report.rows if r.target is not None)
    assert filled == count(params)


@settings(deadline=None)
@given(subsets, subsets)
def test_covering_globs_match_just_the_names(names, others):
    among = sorted({*names, *others})
    globs = covering(names, among)
    tree = dict.fromkeys(among, 0.0)
    assert sorted(select(list(globs)).names(tree)) == sorted(names)
    assert sorted(name for group in globs.values() for name in group) == sorted(names)
    for label, group in globs.items():
        assert sorted(select(label).names(tree)) == sorted(group)


def transformer(depth, width, patches, blocks="block_{:02d}", classes=5, dtype=jnp.float32):
    block = {"norm": {"scale": (width,)}, "mlp": {"kernel": (width, width), "bias": (width,)}}
    shapes = {
        f"backbone/{blocks.format(i)}/{a}/{b}": s for i in range(depth) for a in block for b, s in block[a].items()
    }
    shapes |= {"backbone/pos": (1, patches, width), "head/kernel": (width, classes), "head/bias": (classes,)}
    return from_named({name: jnp.ones(shape, dtype) for name, shape in shapes.items()})


def test_the_table():
    source = {"params": transformer(12, 2, 5, blocks="layer_{}", classes=9, dtype=jnp.bfloat16), "step": jnp.ones(())}
    rename = {"params": ""} | {f"params/backbone/layer_{i}": f"backbone/block_{i:02d}" for i in range(12)}
    _, report = graft(
        transformer(12, 2, 10),
        source,
        rename=dict(reversed(rename.items())),
        reinit="head/**",
        resize={"**/pos": position_grid(prefix_tokens=1)},
        strict=False,
    )
    expected = """\
        graft: 37 of 39 target leaves filled from the source, 116 of 131 parameters
          action         leaf                        leaves  parameters
          resized        backbone/pos                     1          20  from params/backbone/pos; [1, 5, 2] -> [1, 10, 2] by position_grid (timm); bfloat16 -> float32
          cast           backbone/block_{00..11}/**      36          96  from params/backbone/layer_{0..11}/**; bfloat16 -> float32
          reinitialised  head/**                          2          15
          left over      step                             1           1
          dropped        params/head/**                   2          27  reinit
        """  # noqa: E501
    assert str(report) == textwrap.dedent(expected).rstrip()


def test_problems_are_listed_one_by_one_until_they_are_many():
    few = graft(transformer(4, 2, 4), {"head": transformer(0, 2, 4)["head"]}, strict=False)[1]
    many = graft(transformer(14, 2, 4), {"head": transformer(0, 2, 4)["head"]}, strict=False)[1]
    assert sum("kept" in line for line in str(few).splitlines()) == 13
    lines = [line.split()[1:3] for line in str(many).splitlines() if "kept" in line]
    assert lines == [["backbone/**", "43"]]


def test_like_leaves_with_gaps_between_their_numbers_are_not_shown_as_a_range():
    target, source = transformer(6, 2, 4), transformer(6, 2, 4)
    _, report = graft(target, source, reinit="backbone/block_{01,04}/**")
    labels = [line.split()[1] for line in str(report).splitlines() if "reinitialised" in line]
    assert labels == ["backbone/block_01/**", "backbone/block_04/**"]


def test_raise_if():
    _, report = graft({"a": {"w": 1.0}, "b": 2.0}, {"c": 3.0}, strict=False)
    report.raise_if(loaded=True, kept=False)
    report.raise_if(kept="c/**")
    with pytest.raises(GraftError, match="1 leaf was left over, which was not to happen: 'c'"):
        report.raise_if(left_over=True)
    with pytest.raises(GraftError, match="2 leaves were kept, which was not to happen: 'a/w', 'b'"):
        report.raise_if(kept=True)
    with pytest.raises(GraftError, match=r"1 leaf was kept.*'a/w'"):
        report.raise_if(kept="a/**")
    with pytest.raises(GraftError, match="no action is called 'missing'; actions are loaded, renamed"):
        report.raise_if(missing=True)


def test_to_dict_is_json():
    _, report = graft({"a": jnp.ones((2, 3)), "b": 2.0}, {"a": jnp.ones((2, 3)), "c": 3.0}, strict=False)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["leaves"] == {**dict.fromkeys(ACTIONS, 0), "loaded": 1, "kept": 1, "left_over": 1}
    assert data["parameters"]["loaded"] == 6
    assert data["rows"][0] == {
        "action": "loaded",
        "target": "a",
        "source": "a",
        "target_shape": [2, 3],
        "source_shape": [2, 3],
        "target_dtype": "float32",
        "source_dtype": "float32",
        "note": "",
        "parameters": 6,
    }


def test_a_report_is_a_value():
    rows = (Row("kept", "a", target_shape=(2,)),)
    assert GraftReport(rows) == GraftReport(rows)
    assert hash(GraftReport(rows)) == hash(GraftReport(rows))
    with pytest.raises(AttributeError):
        GraftReport(rows).rows = ()
