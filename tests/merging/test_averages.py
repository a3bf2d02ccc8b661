"""Averages, paths and task vectors: what is merged, what stays, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.merging import (
    MergingError,
    average,
    dare,
    ema,
    interpolate,
    model_stock,
    running,
    slerp,
    stack,
    swa,
    task_arithmetic,
    task_vector,
    ties,
    unstack,
    wise_ft,
)
from tljax.tree import leaf_names, select
from tljax.tree.updates import elect, trim


def model(seed: int, dtype: str = "float32") -> dict:
    """A tree with parameters, statistics and an integer."""
    rng = np.random.default_rng(seed)
    return {
        "backbone": {
            "dense": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), dtype), "steps": jnp.arange(2)},
            "norm": {"batch_stats": {"var": jnp.asarray(rng.uniform(0.5, 1, 4), jnp.float32)}},
        },
        "head": {"bias": jnp.asarray(rng.normal(size=5), dtype)},
    }


A, B, C = model(0), model(1), model(2)
VAR = "backbone/norm/batch_stats/var"
METHODS = {
    "average": lambda **o: average([A, B], **o),
    "interpolate": lambda **o: interpolate(A, B, 0.5, **o),
    "slerp": lambda **o: slerp(A, B, 0.5, **o),
    "model_stock": lambda **o: model_stock(A, [B, C], **o),
    "task_arithmetic": lambda **o: task_arithmetic(A, [B, C], 0.5, **o),
    "ties": lambda **o: ties(A, [B, C], **o),
    "dare": lambda **o: dare(A, B, key=jax.random.key(0), rate=0.5, **o),
}


def leaf(tree: dict, name: str) -> np.ndarray:
    for part in name.split("/"):
        tree = tree[part]
    return np.asarray(tree)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_selected_and_integers_stay_as_in_the_first(method: str) -> None:
    merged = METHODS[method](where="head/**")
    assert jax.tree.structure(merged) == jax.tree.structure(A)
    for name in set(leaf_names(A)) - {"head/bias"}:
        np.testing.assert_array_equal(leaf(merged, name), leaf(A, name))
    assert not np.array_equal(merged["head"]["bias"], A["head"]["bias"])
    np.testing.assert_array_equal(METHODS[method]()["backbone"]["dense"]["steps"], [0, 1])


def test_statistics_are_means_and_never_negative() -> None:
    mean = (leaf(B, VAR) + leaf(C, VAR)) / 2
    for merged in (model_stock(A, [B, C]), ties(A, [B, C]), average([B, C])):
        np.testing.assert_allclose(leaf(merged, VAR), mean, rtol=1e-6)
    np.testing.assert_array_equal(leaf(task_arithmetic(A, [B], -5.0), VAR), leaf(A, VAR))
    np.testing.assert_array_equal(leaf(dare(A, B, key=jax.random.key(0)), VAR), leaf(B, VAR))


@pytest.mark.parametrize("merge", [lambda ms: average(ms), lambda ms: ties(ms[0], ms[1:]), lambda ms: slerp(*ms)])
def test_half_precision_is_merged_in_float32_and_cast_once(merge) -> None:
    models = [model(seed, "bfloat16") for seed in (0, 1)]
    found = merge(models)
    exact = merge([jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, m) for m in models])
    assert found["head"]["bias"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["head"]["bias"], exact["head"]["bias"].astype(jnp.bfloat16))


def test_weights_are_shares() -> None:
    expected = 0.75 * np.asarray(A["head"]["bias"]) + 0.25 * np.asarray(B["head"]["bias"])
    np.testing.assert_allclose(average([A, B], [3.0, 1.0])["head"]["bias"], expected, rtol=1e-6)
    with pytest.raises(MergingError, match="3 weights for 2 models"):
        average([A, B], [1.0, 1.0, 1.0])
    with pytest.raises(MergingError, match="add up to 0"):
        average([A, B], [1.0, -1.0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"head": {"kernel": jnp.ones(2), "bias": jnp.ones(3)}}, r"'head/kernel' is \(3,\) in model 0 and \(2,\)"),
        (
            {"head": {"kernal": jnp.ones(3), "bias": jnp.ones(3)}},
            "'head/kernel' is in model 0.*nearest is 'head/kernal'",
        ),
        ({"head": {"kernel": jnp.arange(3), "bias": jnp.ones(3)}}, "'head/kernel' is float32 in model 0 and int32"),
    ],
)
def test_models_that_do_not_fit_are_named(other: dict, message: str) -> None:
    first = {"head": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}}
    with pytest.raises(MergingError, match=message):
        average([first, other])


def test_integers_must_agree() -> None:
    a, b = ({"w": jnp.ones(2), "ids": jnp.arange(2) + i} for i in range(2))
    with pytest.raises(MergingError, match=r"'ids' holds int32.*where=~select\('ids'\)"):
        average([a, b])
    np.testing.assert_array_equal(average([a, b], where=~select("ids"))["ids"], a["ids"])


def test_nothing_to_merge() -> None:
    with pytest.raises(MergingError, match="nothing to merge"):
        average([])
    with pytest.raises(MergingError, match="nothing to merge"):
        ties(A, [])
    with pytest.raises(MergingError, match="two or more; found 1"):
        model_stock(A, [B])


def test_wise_ft_ends_at_the_models() -> None:
    path = wise_ft(A, B)
    assert path["head"]["bias"].shape == (11, 5)
    for i, end in ((0, A), (10, B)):
        jax.tree.map(np.testing.assert_array_equal, unstack(path)[i], end)
    np.testing.assert_allclose(path["head"]["bias"][5], (A["head"]["bias"] + B["head"]["bias"]) / 2, rtol=1e-6)


def test_stack_and_unstack() -> None:
    for before, after in zip([A, B, C], unstack(stack([A, B, C]))):
        jax.tree.map(np.testing.assert_array_equal, before, after)
    with pytest.raises(MergingError, match="'w' is"):
        stack([{"w": jnp.ones(2)}, {"w": jnp.ones(3)}])


def test_slerp_keeps_the_norm_of_vectors_of_equal_norm() -> None:
    a, b = (
        {"w": jnp.asarray(v / np.linalg.norm(v), jnp.float32)} for v in np.random.default_rng(0).normal(size=(2, 50))
    )
    assert float(jnp.linalg.norm(slerp(a, b, 0.3)["w"])) == pytest.approx(1, abs=1e-6)


def test_slerp_where_there_is_no_arc() -> None:
    v = jnp.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(slerp({"w": v}, {"w": 3 * v}, 0.5)["w"], 2 * v, rtol=1e-6)
    np.testing.assert_allclose(slerp({"w": 0 * v}, {"w": v}, 0.5)["w"], v / 2, rtol=1e-6)
    np.testing.assert_allclose(slerp({"w": v[:1]}, {"w": -v[:1]}, 0.25)["w"], [0.5], rtol=1e-6)
    with pytest.raises(MergingError, match="'w' points opposite ways"):
        slerp({"w": v}, {"w": -v}, 0.5)
    assert bool(jnp.isnan(jax.jit(lambda a, b: slerp({"w": a}, {"w": b}, 0.5)["w"])(v, -v)).all())


def test_model_stock_from_its_formula() -> None:
    rng = np.random.default_rng(0)
    base, *models = rng.normal(size=(4, 6, 2))
    updates = [m - base for m in models]
    cosines = [
        np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(updates) for b in updates[:i]
    ]
    c = np.clip(np.mean(cosines), 0, 1)
    expected = base + 3 * c / (1 + 2 * c) * (np.mean(models, 0) - base)
    trees = [{"w": jnp.asarray(m, jnp.float32)} for m in (base, *models)]
    np.testing.assert_allclose(model_stock(trees[0], trees[1:])["w"], expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, model_stock(A, [A, A]), A)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-4, 4, width=16), min_size=12, max_size=12), st.floats(0.01, 1))
def test_trim_keeps_the_largest_and_what_equals_the_smallest_of_them(values: list[float], density: float) -> None:
    vector = np.array(values, np.float32)
    k = max(1, int(density * len(vector) + 1e-6))
    threshold = np.sort(np.abs(vector))[::-1][k - 1]
    split = len(vector) // 2
    found = trim({"a": jnp.asarray(vector[:split]), "b": jnp.asarray(vector[split:])}, density)
    expected = np.where(np.abs(vector) >= threshold, vector, 0)
    np.testing.assert_array_equal(np.concatenate([found["a"], found["b"]]), expected)


def test_ties_keeps_all_at_density_1_and_trims_by_tensor() -> None:
    base = {"a": jnp.zeros(4), "b": jnp.zeros(4)}
    tuned = {"a": jnp.array([1.0, 2.0, 3.0, 4.0]), "b": jnp.array([0.1, 0.2, 0.3, 0.4])}
    jax.tree.map(np.testing.assert_array_equal, ties(base, [tuned], density=1.0), tuned)
    np.testing.assert_array_equal(ties(base, [tuned], density=0.5)["b"], np.zeros(4))
    np.testing.assert_allclose(ties(base, [tuned], density=0.5, per_tensor=True)["b"], [0, 0, 0.3, 0.4])
    with pytest.raises(MergingError, match=r"density=20; expected a share in \(0, 1\]"):
        ties(base, [tuned], density=20)


def test_a_sum_of_zero_takes_the_sign_of_the_majority() -> None:
    # Elements 1 and 2 vote for minus, element 0 is undecided: -1 against +1.
    updates = [{"w": jnp.array([1.0, -1.0, -1.0, 2.0])}, {"w": jnp.array([-1.0, -1.0, -1.0, 2.0])}]
    np.testing.assert_array_equal(elect([*updates])["w"], [1 * -1.0, -1, -1, 2])


def test_dare_drops_its_share_and_keeps_the_expectation() -> None:
    base, tuned = {"w": jnp.ones((200, 200))}, {"w": jnp.full((200, 200), 1.5)}
    update = np.asarray(dare(base, tuned, key=jax.random.key(1))["w"]) - 1
    assert np.mean(update == 0) == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(update[update != 0], 5, rtol=1e-5)
    assert update.mean() == pytest.approx(0.5, abs=0.05)
    jax.tree.map(np.testing.assert_array_equal, dare(base, tuned, key=jax.random.key(1), rate=0.0), tuned)
    with pytest.raises(MergingError, match="rate=1"):
        dare(base, tuned, key=jax.random.key(1), rate=1)


def test_task_arithmetic_forgets_and_scales_one_by_one() -> None:
    vector = task_vector(A, B)
    assert leaf_names(vector) == ["backbone/dense/kernel", "head/bias"]
    negated = task_arithmetic(A, [B], -1.0)
    np.testing.assert_allclose(negated["head"]["bias"], A["head"]["bias"] - vector["head"]["bias"], rtol=1e-6)
    two = task_arithmetic(A, [B, C], [1.0, 0.0])
    np.testing.assert_allclose(two["head"]["bias"], B["head"]["bias"], rtol=1e-5)
    swept = jax.vmap(lambda s: task_arithmetic(A, [B], s)["head"]["bias"])(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(swept, jnp.stack([A["head"]["bias"], B["head"]["bias"]]), rtol=1e-5, atol=1e-6)
    with pytest.raises(MergingError, match="3 scales for 2 models"):
        task_arithmetic(A, [B, C], [1.0, 1.0, 1.0])


def test_swa_is_the_mean_and_ema_its_recurrence() -> None:
    models = [{"w": jnp.asarray(v, jnp.bfloat16), "n": jnp.int32(i)} for i, v in enumerate([1.0, 1.0078125, 1.0])]
    average_of = running(models[0])
    for m in models[1:]:
        average_of = jax.jit(swa)(average_of, m)
    assert float(average_of.mean["w"]) == pytest.approx(np.mean([1.0, 1.0078125, 1.0]), abs=1e-7)
    assert (int(average_of.count), int(average_of.mean["n"])) == (3, 2)
    assert average_of.like(models[0])["w"].dtype == jnp.bfloat16
    mean, values, now = 1.0, [3.0, -2.0, 5.0], running({"w": jnp.array(1.0)})
    for t, value in enumerate(values, start=1):
        d = min(0.3, (1 + t) / (10 + t))
        mean, now = d * mean + (1 - d) * value, ema(now, {"w": jnp.array(value)}, decay=0.3)
    assert float(now.mean["w"]) == pytest.approx(mean, rel=1e-6)
    with pytest.raises(MergingError, match="'v' is in the new model"):
        swa(now, {"w": jnp.array(1.0), "v": jnp.array(1.0)})
