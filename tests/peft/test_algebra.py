"""Sums of adapters against dense deltas in NumPy, and against peft where peft is wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.peft import (
    Full,
    Layout,
    LoRA,
    PeftError,
    as_lora,
    concat,
    dare,
    dora,
    factored,
    full,
    ia3,
    join,
    lora,
    merge,
    olora,
    pad_rank,
    pissa,
    scaled,
    ties,
    truncate,
    vera,
)
from tljax.tree import named_leaves, select

RNG = np.random.default_rng(0)


def array(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


BASE = {
    "dense": {"kernel": array(6, 8), "bias": array(8)},
    "attention": {"query": {"kernel": array(6, 2, 4)}, "out": {"kernel": array(2, 4, 6)}},
    "conv": {"kernel": array(3, 3, 4, 10)},
    "embed": {"embedding": array(11, 6)},
    "layers": {"kernel": array(5, 6, 7)},
    "torch": {"weight": array(9, 6)},
}
LAYOUTS = {
    "layers/kernel": Layout(stack=1),
    "torch/weight": Layout(transposed=True),
    "attention/query/kernel": Layout(),
    "attention/out/kernel": Layout(ins=2),
}
MATRICES = "**/{kernel,embedding,weight}"


def random(adapters: dict) -> dict:
    """The adapters with noise in all that learns."""
    noisy = {}
    for name, adapter in adapters.items():
        learned = {f.name for f in dataclasses.fields(adapter)} & {"a", "b", "d", "magnitude", "value"}
        new = {
            f: jnp.abs(array(*getattr(adapter, f).shape)) if f == "magnitude" else array(*getattr(adapter, f).shape)
            for f in learned
        }
        noisy[name] = dataclasses.replace(adapter, **new)
    return noisy


def made(kind, rank: int, where: str = MATRICES, **options) -> dict:
    known = {name: layout for name, layout in LAYOUTS.items() if select(where).matches(name)}
    return random(kind(BASE, where, rank=rank, layouts=known, **options))


A = made(lora, 2, key=jax.random.key(0), alpha=5.0, rslora=True)
B = made(lora, 3, key=jax.random.key(1), alpha={"**": 4.0, "dense/kernel": 1.0})


def delta(adapter: LoRA) -> np.ndarray:
    """``s a b`` in float64, `[stack, inputs, outputs]`, from the definition."""
    stack = adapter.layout.stack
    ahead = adapter.a.shape[:stack]
    a, b = np.asarray(adapter.a, np.float64), np.asarray(adapter.b, np.float64)
    a, b = a.reshape(*ahead, -1, a.shape[-1]), b.reshape(*ahead, b.shape[stack], -1)
    total = np.matmul(a, b)
    if "a0" in adapter.constants:
        a0, b0 = (np.asarray(adapter.constants[k], np.float64) for k in ("a0", "b0"))
        total = total - np.matmul(a0.reshape(a.shape), b0.reshape(b.shape))
    return total * np.float64(adapter.constants["scale"])


def close(found, expected, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.slow
def test_concat_is_the_sum_of_deltas_in_every_layout() -> None:
    both, plain = concat([A, B], [0.7, -0.5]), concat([A, B])
    assert both.keys() == A.keys()
    for name, adapter in both.items():
        assert adapter.a.shape[-1] == 5
        close(delta(adapter), 0.7 * delta(A[name]) - 0.5 * delta(B[name]))
        close(delta(plain[name]), delta(A[name]) + delta(B[name]))


@pytest.mark.slow
def test_concat_changes_the_base_as_the_sum_does() -> None:
    merged, *single = (named_leaves(merge(BASE, x)) for x in (concat([A, B], [0.7, -0.5]), A, B))
    for name, leaf in named_leaves(BASE).items():
        expected = leaf + 0.7 * (single[0][name] - leaf) - 0.5 * (single[1][name] - leaf)
        close(merged[name], expected)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", A)
def test_truncate_is_the_truncated_svd_of_the_dense_delta(name: str) -> None:
    both = concat([{name: A[name]}, {name: B[name]}], [0.7, -0.5])
    r = 4 if name.startswith("conv") else 2
    small = truncate(both, {"**": 2} | ({name: 4} if r == 4 else {}))[name]
    u, s, vt = np.linalg.svd(delta(both[name]), full_matrices=False)
    assert small.a.shape[-1] == r
    close(delta(small), np.matmul(u[..., :r] * s[..., None, :r], vt[..., :r, :]), 1e-4)
    close(delta(truncate(both, 5)[name]), delta(both[name]), 1e-4)


def test_truncate_forms_no_matrix_of_the_size_of_the_weight() -> None:
    n, r = 512, 4
    adapters = {"w": LoRA(array(n, r), array(r, n), {"scale": jnp.float32(1.0)})}
    program = jax.jit(lambda x: truncate(concat([x, x]), 2)).lower(adapters).as_text()
    assert f"{n}x{n}" not in program


def test_the_sum_of_factors_is_not_the_sum_of_deltas() -> None:
    """What peft calls a linear combination, for comparison."""
    a, b = A["dense/kernel"], made(lora, 2, key=jax.random.key(3))["dense/kernel"]
    cross = dataclasses.replace(a, a=a.a + b.a, b=a.b + b.b, constants={"scale": jnp.float32(1.0)})
    one = {"scale": jnp.float32(1.0)}
    exact = delta(dataclasses.replace(a, constants=one)) + delta(dataclasses.replace(b, constants=one))
    assert np.linalg.norm(delta(cross) - exact) > 0.5 * np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pissa, olora])
def test_pissa_and_olora_become_lora_of_twice_the_rank(kind) -> None:
    adapters = made(kind, 2, where="**/kernel")
    plain = as_lora(adapters)
    for name, adapter in plain.items():
        assert adapter.a.shape[-1] == 4
        assert adapter.constants.keys() == {"scale"}
        close(delta(adapter), delta(adapters[name]))
    both = concat([adapters, B], [0.5, 2.0])["dense/kernel"]
    close(delta(both), 0.5 * delta(adapters["dense/kernel"]) + 2 * delta(B["dense/kernel"]))


def test_scaling_and_negation() -> None:
    for adapters in (A, made(pissa, 2, where="**/kernel")):
        for name, adapter in scaled(adapters, -0.5).items():
            close(delta(adapter), -0.5 * delta(adapters[name]))
    nothing = merge(BASE, concat([A, scaled(A, -1.0)]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), nothing, BASE)


def test_vera_and_full_leaves_with_the_base() -> None:
    v = vera(BASE, "dense/kernel", key=jax.random.key(0), rank=3)
    v["dense/kernel"] = dataclasses.replace(v["dense/kernel"], b=array(8))
    head = {"dense/bias": Full(array(8))}
    both = concat([v, join(A, head), {"dense/bias": Full(array(8))}], [2.0, 0.25, 0.5], params=BASE)
    leaf = BASE["dense"]["kernel"]
    expected = leaf + 2 * (merge(BASE, v)["dense"]["kernel"] - leaf) + 0.25 * delta(A["dense/kernel"])
    close(merge(BASE, both)["dense"]["kernel"], expected)
    alone = concat([head], [0.25], params=BASE)["dense/bias"].value
    close(alone, BASE["dense"]["bias"] + 0.25 * (head["dense/bias"].value - BASE["dense"]["bias"]))
    mixed = concat([{"dense/kernel": Full(leaf + 1)}, A], params=BASE)
    close(merge(BASE, mixed)["dense"]["kernel"], leaf + 1 + delta(A["dense/kernel"]))
    close(scaled(v, 3.0)["dense/kernel"].b, 3 * v["dense/kernel"].b)
    close(scaled(head, 3.0, params=BASE)["dense/bias"].value, 3 * head["dense/bias"].value - 2 * BASE["dense"]["bias"])
    for add in (lambda: concat([v]), lambda: concat([head]), lambda: scaled(head, 2.0)):
        with pytest.raises(PeftError, match=r"needs the base, as .* pass params="):
            add()


@pytest.mark.parametrize("add", [lambda x: concat([x, A]), lambda x: scaled(x, 0.5), lambda x: ties([x], rank=2)])
@pytest.mark.parametrize("kind", ["dora", "ia3"])
def test_what_is_no_sum_is_refused_with_what_to_do(add, kind: str) -> None:
    adapters = (
        dora(BASE, "dense/kernel", key=jax.random.key(0), rank=2) if kind == "dora" else ia3(BASE, "dense/kernel")
    )
    with pytest.raises(PeftError, match=rf"the {kind} adapter of 'dense/kernel' cannot.*merge\(params, adapters\)"):
        add(adapters)


def dense_ties(deltas: list[np.ndarray], weights: list[float], density: float) -> np.ndarray:
    kept = []
    for d in deltas:
        threshold = np.sort(np.abs(d).ravel())[::-1][int(density * d.size) - 1]
        kept.append(np.where(np.abs(d) >= threshold, d, 0))
    kept = np.stack([w * k for w, k in zip(weights, kept)])
    agree = (kept * np.sign(kept.sum(0))) > 0
    return (kept * agree).sum(0) / np.maximum(agree.sum(0), 1)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["dense/kernel", "layers/kernel", "torch/weight"])
def test_ties_on_deltas_and_back_to_a_rank(name: str) -> None:
    sets, expected = [{name: A[name]}, {name: B[name]}], dense_ties([delta(A[name]), delta(B[name])], [0.7, 0.5], 0.3)
    close(delta(ties(sets, [0.7, 0.5], rank=6, density=0.3)[name]), expected, 1e-4)
    u, s, vt = np.linalg.svd(expected, full_matrices=False)
    small = np.matmul(u[..., :2] * s[..., None, :2], vt[..., :2, :])
    close(delta(ties(sets, [0.7, 0.5], rank=2, density=0.3)[name]), small, 1e-4)
    with pytest.raises(PeftError, match="density=30"):
        ties([A, B], rank=2, density=30)
    with pytest.raises(PeftError, match="rank=0 for"):
        ties([A, B], rank=0)


def test_dare_drops_elements_of_each_delta() -> None:
    name, key = "layers/kernel", jax.random.key(0)
    a, b = {name: A[name]}, {name: B[name]}
    found, exact = delta(dare([a], rank=6, key=key, rate=0.5)[name]), delta(A[name])
    kept = np.abs(found) > 1e-4
    assert np.mean(kept) == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(found[kept], 2 * exact[kept], rtol=1e-2, atol=1e-3)
    close(delta(dare([a, b], [1.0, 2.0], rank=6, key=key, rate=0.0)[name]), exact + 2 * delta(B[name]), 1e-4)
    with pytest.raises(PeftError, match="rate=1"):
        dare([A], rank=2, key=jax.random.key(0), rate=1.0)


def test_sets_that_do_not_fit() -> None:
    with pytest.raises(PeftError, match="1 weights for 2 sets"):
        concat([A, B], [1.0])
    other = {"dense/kernel": LoRA(array(5, 2), array(2, 8), {"scale": jnp.float32(1.0)})}
    with pytest.raises(PeftError, match=r"'dense/kernel' is .* in set 1"):
        concat([A, other])
    with pytest.raises(PeftError, match="no such leaf"):
        concat([{"dense/kernal": other["dense/kernel"]}], params=BASE)
    with pytest.raises(PeftError, match="rank=0"):
        truncate(A, 0)


@pytest.mark.slow
def test_padding_changes_shapes_and_nothing_else() -> None:
    where = "{dense,layers}/kernel"
    drawn = {"where": where, "key": jax.random.key(0)}
    sets = [made(lora, 2, **drawn), made(pissa, 2, where=where), made(dora, 2, **drawn)]
    for adapters in sets:
        padded = pad_rank(adapters, 6)
        assert {x.a.shape[-1] for x in padded.values()} == {6}
        jax.tree.map(lambda x, y: close(x, y), merge(BASE, padded), merge(BASE, adapters))
    with pytest.raises(PeftError, match=r"has rank 3, above rank=2; write truncate\(adapters, 2\)"):
        pad_rank(B, 2)
    head = full(BASE, "dense/bias")
    assert pad_rank(head, 4)["dense/bias"] is head["dense/bias"]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("evaluation", ["merged", "factored"])
def test_swapping_adapters_compiles_once(evaluation: str) -> None:
    traces = []

    def apply(params, x):
        return x @ params["dense"]["kernel"]

    @jax.jit
    def outputs(params, adapters, x):
        traces.append(1)
        if evaluation == "factored":
            return factored(apply)(params, adapters, x)
        return apply(merge(params, adapters), x)

    x = array(3, 6)
    swaps = [A, B, scaled(A, 3.0), truncate(concat([A, B]), 3)]
    for adapters in swaps:
        padded = pad_rank(as_lora({"dense/kernel": adapters["dense/kernel"]}), 8)
        close(outputs(BASE, padded, x), x @ merge(BASE, adapters)["dense"]["kernel"])
    assert len(traces) == 1
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(pad_rank({"dense/kernel": as_lora(s)["dense/kernel"]}, 8) for s in (A, B))
    )
    both = jax.vmap(lambda adapters: merge(BASE, adapters)["dense"]["kernel"])(stacked)
    close(both[1], merge(BASE, B)["dense"]["kernel"])


@pytest.mark.slow
def test_weights_may_be_traced() -> None:
    swept = jax.vmap(lambda w: merge(BASE, concat([A, B], [w, 1 - w]))["dense"]["kernel"])(jnp.array([0.0, 1.0]))
    close(swept[1], merge(BASE, A)["dense"]["kernel"])
    close(swept[0], merge(BASE, B)["dense"]["kernel"])
