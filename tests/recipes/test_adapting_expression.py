"""Expressions of methods: what is read, what is refused, and that nothing in them runs."""

import argparse
import contextlib
import io
import pathlib
import re

import pytest

from tljax.commands.adapt import add_adapt
from tljax.recipes import SettingsError
from tljax.recipes.adapting.expression import read_call, read_sum
from tljax.recipes.adapting.methods import METHODS, VIEWS, approach


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cdan", [("cdan", {}, None)]),
        ("cdan+mcc", [("cdan", {}, None), ("mcc", {}, None)]),
        (" dann + 0.1 * mcc ", [("dann", {}, None), ("mcc", {}, 0.1)]),
        ("dann+mcc*2", [("dann", {}, None), ("mcc", {}, 2.0)]),
        ("1e-4*bsp+dann+dan", [("bsp", {}, 1e-4), ("dann", {}, None), ("dan", {}, None)]),
        (
            "cdan(entropy=true)+mcc(temperature=3)",
            [("cdan", {"entropy": True}, None), ("mcc", {"temperature": 3}, None)],
        ),
        ("coral(form=correlation)", [("coral", {"form": "correlation"}, None)]),
        ("x(a=-1, b=None, c=(1, 2), d='s')", [("x", {"a": -1, "b": None, "c": (1, 2), "d": "s"}, None)]),
        ("entropy-minimization", [("entropy_minimization", {}, None)]),
    ],
)
def test_sums_are_read(text, parts):
    assert [(p.call.name, p.call.options, p.weight) for p in read_sum(text)] == parts


@pytest.mark.parametrize(
    "text",
    ["", "+", "a+", "a-b+", "a/2", "2", "-1*a", "true*a", "a*b", "(a+b)*2", "a(1)", "a(**b)", "a.b",
     "a(x=f())", "a(x=1, x=2)", "a[0]", "a if b else c", "lambda: 0", "__import__('os').system('true')", "a\nb", "\0",
     "(" * 1000],
)  # fmt: skip
def test_anything_else_is_one_line(text):
    with pytest.raises(SettingsError) as error:
        read_sum(text)
    assert "cdan+mcc" in str(error.value)


def test_models_have_names_of_any_signs():
    assert read_call("mobilenet-v1-0.25") == ("mobilenet-v1-0.25", {})
    assert read_call("nets.py:Net(width=3)") == ("nets.py:Net", {"width": 3})
    with pytest.raises(SettingsError, match="no model with options"):
        read_call("lenet(5)")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds(name):
    found = approach(name.replace("_", "-"))
    assert found.name == name.replace("_", "-")
    assert set(found.objective.streams) & {"source", "train"}  # the cross-entropy's
    assert "target" in {VIEWS.get(stream, stream) for stream in found.objective.streams}


def test_the_documentation_lists_them_all():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "adapt.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\S+) \| (\S+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (name.replace("_", "-"), f"{row.weight:g}", str(row.bottleneck or "none"), row.summary)
        for name, row in METHODS.items()
    ]


def test_the_help_names_every_method():
    parser = argparse.ArgumentParser()
    add_adapt(parser.add_subparsers())
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        parser.parse_args(["adapt", "--help"])
    words = set(re.findall(r"[a-z-]+", re.sub(r"-\n\s+", "-", shown.getvalue())))
    assert {name.replace("_", "-") for name in METHODS} <= words


def test_weights_are_the_published_ones_unless_given():
    assert "0.0001 * bsp()" in str(approach("dann+bsp").objective)
    assert str(approach("adda").objective) == "cross_entropy() + adda()"
    assert str(approach("adda(weight=0.3)").objective) == "cross_entropy() + adda(weight=0.3)"
    assert "0.5 * bsp()" in str(approach("dann+0.5*bsp").objective)
    assert "coral(form='moments')" in str(approach("coral").objective)
    assert str(approach("coral(form=covariance, on=logits)").objective).endswith("+ coral(on='logits')")
    assert approach("dann+0.5*bsp").name == "dann+0.5*bsp"
    assert str(approach("mcc").objective) == "cross_entropy() + mcc()"
    assert approach("mdd+mcc").bottleneck == METHODS["mdd"].bottleneck


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cdna", "no method is called 'cdna'; did you mean 'cdan'"),
        ("cdan+mcc(temprature=3)", "mcc has no option 'temprature'; did you mean 'temperature'"),
        ("mcc(stream=source)", "mcc has no option 'stream'"),
        ("source-only+mcc", "source-only is training without any other term"),
        ("source-only(a=1)", "source-only is training without any other term"),
        ("mean-teacher(decay=2)", "method 'mean-teacher.decay=2.': mean_teacher: decay=2"),
        ("mcd+mcd(repeat=2)", "method 'mcd.mcd.repeat=2.'"),
        ("MCC", "no method is called 'MCC'; did you mean 'mcc'"),
        ("0*mcc", "a weight is a number above 0 and below 1e9; found 0"),
        ("mcc*1e400", "a weight is a number above 0 and below 1e9; found inf"),
        ("0.5*source-only", "source-only is training without any other term"),
        ("cdan(entropy=no)", "entropy='no'; expected true or false"),
        ("cdan(randomized=1.5)", "randomized=1.5; expected a whole number or none"),
        ("mcc(temperature=a)", "temperature='a'; expected a number"),
        ("mcc(temperature=0)", "temperature=0; expected a number above 0"),
        ("coral(form=bad)", "form='bad'; expected 'covariance' or 'moments'"),
        ("dann(strength=high)", "strength='high'; expected a number or a schedule, as warm_up.steps=200. or none"),
        ("dann(strength=warm_up(stpes=3))", "warm_up has no option 'stpes'"),
        ("dann(strength=warm_up(steps=x))", "steps='x'; expected a whole number"),
        ("dan(kernel=3)", "kernel=3; expected what only Python can give"),
        ("mdd(regression=true)", "mdd has no option 'regression'"),
    ],
)
def test_errors_name_the_nearest(text, message):
    with pytest.raises(SettingsError, match=message):
        approach(text)


def test_a_strength_may_be_a_schedule():
    found = approach("dann(strength=warm_up(alpha=10, steps=400))+mcc")
    assert found.name == "dann(strength=warm_up(alpha=10, steps=400))+mcc"
    assert "dann(strength=warm_up(alpha=10, steps=400))" in str(found.objective)
    for wrong in (
        "dann(strength=warm_up(stpes=3))",
        "dann(strength=warm_up(steps=0))",
        "dann(strength=high)",
        "mcd(repeat=0)",
    ):
        with pytest.raises(SettingsError):
            approach(wrong)
