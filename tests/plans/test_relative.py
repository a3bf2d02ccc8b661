"""Automatic rates against the formula written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.plans import PlanError, auto_rgn, freeze, gradual_unfreeze, plan, rate
from tljax.plans.relative import relative_rates
from tljax.tree import NoMatchError, from_named, named_leaves

RNG = np.random.default_rng(0)
NAMES = ("backbone/a/w", "backbone/a/b", "backbone/c/w", "head/w")
PARAMS = {name: RNG.normal(size=(3,)).astype(np.float32) for name in NAMES}
TREE = from_named(PARAMS)


def factors(p, steps, params=None):
    """The factor of each leaf at each step, of gradients that are given."""
    tree = from_named(params or PARAMS)
    scale = relative_rates(p.resolve(tree).settings)
    state, found = scale.init(tree), []
    ones = from_named({name: np.ones(3, np.float32) for name in NAMES})
    for step, grads in enumerate(steps):
        scaled, state = scale.update(ones, state, tree, grad=from_named(grads), step=jnp.int32(step))
        found.append({name: float(leaf[0]) for name, leaf in named_leaves(scaled).items()})
    return found


STEPS = [{name: RNG.normal(size=3).astype(np.float32) for name in NAMES} for _ in range(4)]
BLOCKS = {"backbone/a/w": "a", "backbone/a/b": "a", "backbone/c/w": "c", "head/w": "head"}


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_factors_are_averaged_ratios_over_the_largest(batches, grouped):
    groups = ["backbone/a/**", "backbone/c/**", "head/**"] if grouped else None
    found = factors(plan(auto_rgn(groups=groups, batches=batches)), STEPS)
    blocks = BLOCKS if grouped else {name: name for name in NAMES}
    average = dict.fromkeys(blocks.values(), 0.0)
    for step, grads in enumerate(STEPS):
        for block in average:
            mine = [name for name in NAMES if blocks[name] == block]
            g = np.sqrt(sum(np.sum(grads[name].astype(float) ** 2) for name in mine))
            w = np.sqrt(sum(np.sum(PARAMS[name].astype(float) ** 2) for name in mine))
            average[block] += (g / w - average[block]) / batches
        top = max(average.values())
        for name in NAMES:
            np.testing.assert_allclose(found[step][name], average[blocks[name]] / top, rtol=1e-5)
        assert max(found[step].values()) == 1


def test_other_leaves_and_frozen_ones_keep_out_of_it():
    found = factors(plan(auto_rgn("backbone/**", batches=1), freeze("backbone/c/**")), STEPS[:1])[0]
    assert found["head/w"] == found["backbone/c/w"] == 1
    a, b = (np.linalg.norm(STEPS[0][n]) / np.linalg.norm(PARAMS[n]) for n in NAMES[:2])
    np.testing.assert_allclose([found["backbone/a/w"], found["backbone/a/b"]], np.array([a, b]) / max(a, b), rtol=1e-5)


def test_leaves_at_zero_have_a_finite_ratio():
    zero = PARAMS | {"head/w": np.zeros(3, np.float32)}
    found = factors(plan(auto_rgn(batches=1)), STEPS[:1], zero)[0]
    ratio = np.linalg.norm(STEPS[0]["head/w"]) / (1e-3 * np.sqrt(3))
    other = np.linalg.norm(STEPS[0]["backbone/a/w"]) / np.linalg.norm(PARAMS["backbone/a/w"])
    np.testing.assert_allclose(found["backbone/a/w"], other / ratio, rtol=1e-5)
    still = factors(plan(auto_rgn()), [{name: np.zeros(3, np.float32) for name in NAMES}])[0]
    assert set(still.values()) == {1.0}  # no gradient anywhere: 0 / 0


def test_closed_groups_do_not_count_for_the_largest():
    p = plan(auto_rgn(batches=1), gradual_unfreeze(["backbone/**", "head/**"], every=2))
    found = factors(p, [STEPS[0]] * 3)
    assert found[0]["head/w"] == found[1]["head/w"] == 1
    ratios = [np.linalg.norm(STEPS[0][n]) / np.linalg.norm(PARAMS[n]) for n in NAMES]
    np.testing.assert_allclose(found[2]["head/w"], ratios[3] / max(ratios), rtol=1e-5)


def test_it_prints():
    p = plan(auto_rgn("backbone/**"), rate("head/**", 2.0))
    assert str(p) == "plan(auto_rgn('backbone/**', batches=5), rate('head/**', 2))"
    assert p.resolve(TREE).table(TREE).splitlines()[1] == (
        "learns                   3            9     1  relative gradient norm       -  backbone/a, backbone/c"
    )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: auto_rgn(batches=0), "1 or more; found 0"),
        (lambda: auto_rgn(batches=float("nan")), "found nan"),
        (lambda: auto_rgn(groups=[]), "groups are selectors"),
        (lambda: plan(auto_rgn("head/**", groups=["backbone/**"])).resolve(TREE), "speaks of no parameter"),
    ],
)
def test_what_it_refuses(rule, message):
    with pytest.raises(PlanError, match=message):
        rule()
    with pytest.raises(NoMatchError):
        plan(auto_rgn("stem/**")).resolve(TREE)
