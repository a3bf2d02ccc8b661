"""L2-SP: what it anchors, what it decays, what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.objectives import Scene, StartError, l2_sp
from tljax.tree import NoMatchError


def params(seed, classes=2):
    rng = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return {
        "backbone": {
            "dense": {"kernel": make(3, 4), "bias": make(4)},
            "norm": {"scale": make(4), "batch_stats": {"mean": make(4)}},
        },
        "head": {"kernel": make(4, classes), "bias": make(classes)},
    }


def scene(tree):
    return Scene({}, {}, tree, lambda p, x: None, jnp.int32(0), jax.random.key(0))


def value(term, now):
    owned = term.init(jax.random.key(0), scene(now))
    return term.apply(owned, scene(now))[0]


def half_square(*leaves):
    return 0.5 * sum(float((np.asarray(leaf, "float64") ** 2).sum()) for leaf in leaves)


def by_hand(start, now, head_decay):
    pairs = [("dense", "kernel"), ("dense", "bias"), ("norm", "scale")]
    gap = half_square(*(now["backbone"][a][b] - start["backbone"][a][b] for a, b in pairs))
    return gap + head_decay * half_square(*now["head"].values())


@pytest.mark.parametrize("head_decay", [0.0, 0.1, 1.0])
def test_formula(head_decay):
    start, now = params(0, classes=5), params(1)
    assert float(value(l2_sp(start, head_decay=head_decay), now)) == pytest.approx(
        by_hand(start, now, head_decay), rel=1e-6
    )


@pytest.mark.slow
def test_gradient_is_the_distance_and_zero_at_the_start():
    start, now = params(0), params(1)
    term = l2_sp(start, head_decay=0.5)
    slope = jax.grad(lambda tree: value(term, tree))(now)
    np.testing.assert_allclose(
        slope["backbone"]["dense"]["kernel"],
        now["backbone"]["dense"]["kernel"] - start["backbone"]["dense"]["kernel"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(slope["head"]["bias"], 0.5 * now["head"]["bias"], rtol=1e-6)
    assert not np.any(slope["backbone"]["norm"]["batch_stats"]["mean"])
    at_start = jax.grad(lambda tree: value(term, tree))(start)["backbone"]
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(at_start))


def test_what_changed_shape_or_is_new_counts_as_new():
    start, now = params(0), params(1)
    start["backbone"]["dense"]["bias"] = jnp.zeros(9)
    del start["backbone"]["norm"]
    expected = half_square(
        now["backbone"]["dense"]["kernel"] - start["backbone"]["dense"]["kernel"],
        now["backbone"]["dense"]["bias"],
        now["backbone"]["norm"]["scale"],
        *now["head"].values(),
    )
    assert float(value(l2_sp(start), now)) == pytest.approx(expected, rel=1e-6)


def test_where():
    start, now = params(0), params(1)
    kernels = l2_sp(start, where="**/kernel", head_decay=0.0)
    expected = half_square(
        now["backbone"]["dense"]["kernel"] - start["backbone"]["dense"]["kernel"],
        now["head"]["kernel"] - start["head"]["kernel"],
    )
    assert float(value(kernels, now)) == pytest.approx(expected, rel=1e-6)
    assert str(kernels) == "l2_sp(start, where='**/kernel', head_decay=0.0)"
    assert str(0.01 * l2_sp(start)) == "0.01 * l2_sp(start)"


def test_init_needs_shapes_only_and_copies():
    start, now = params(0), params(1)
    term = l2_sp(start)
    abstract = scene(jax.eval_shape(lambda: now))
    owned = jax.jit(lambda key: term.init(key, abstract))(jax.random.key(0))
    assert float(term.apply(owned, scene(now))[0]) == pytest.approx(by_hand(start, now, 1.0), rel=1e-6)
    owned = term.init(jax.random.key(0), abstract)
    for leaf in jax.tree.leaves(owned):
        leaf.delete()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(start))
    assert set(owned.state) == {
        "backbone/dense/kernel",
        "backbone/dense/bias",
        "backbone/norm/scale",
    }


def test_half_precision_is_summed_in_float32():
    start, now = params(0), jax.tree.map(lambda x: x.astype(jnp.bfloat16), params(1))
    found = value(l2_sp(start), now)
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(
        by_hand(start, jax.tree.map(lambda x: x.astype(jnp.float32), now), 1.0), rel=1e-5
    )


def test_nothing_to_anchor_raises():
    with pytest.raises(StartError, match=r"backbone/dense/bias.*nearest names there are \['dense/bias'"):
        value(l2_sp(params(0)["backbone"]), params(1))


def test_a_typo_in_where_raises():
    with pytest.raises((StartError, NoMatchError), match="bakbone"):
        value(l2_sp(params(0), where="bakbone/**"), params(1))
