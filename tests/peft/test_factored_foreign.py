"""Models that are not ours, and everything that JAX and its libraries wrap around a function."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equality import assert_equal, doubled, stirred
from flax import nnx
from jax import lax

from tljax.peft import Full, Layout, PeftError, explain, factored, full, join, lora, merge
from tljax.tree import named_leaves

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 8)), jnp.float32)


def adapted(params: object, where: object, **options: object) -> dict:
    return stirred(lora(params, where, key=KEY, rank=2, alpha=4.0, **options))


def check(apply: object, params: object, adapters: dict, *args: object, tol: float = 1e-5) -> None:
    """Equal, and no leaf merged."""
    assert_equal(apply, params, adapters, *args, tol=tol)
    told = explain(apply, params, adapters, *args)
    assert not told.merged, told


class Tied(nn.Module):
    """Attention over embedded tokens; the logits come from the same table."""

    dtype: object = None

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        table = nn.Embed(13, 8, dtype=self.dtype, name="embed")
        x = table(ids)
        x += nn.MultiHeadDotProductAttention(2, dtype=self.dtype, name="attention")(x, x)
        return table.attend(nn.LayerNorm(dtype=self.dtype)(x))


IDS = jnp.array([[1, 5, 12], [0, 2, 2]])


@pytest.mark.slow
def test_attention_and_a_tied_table() -> None:
    params = Tied().init(KEY, IDS)["params"]
    adapters = adapted(params, ["embed/embedding", "attention/*/kernel"])
    apply = lambda p, ids: Tied().apply({"params": p}, ids)  # noqa: E731
    # In float64, as the gradient of the table's scale cancels to a hundredth of its terms.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        check(apply, *jax.tree.map(doubled, (params, adapters)), IDS, tol=1e-9)
    told = explain(apply, params, adapters, IDS)
    assert {row.leaf: row.factored for row in told.rows}["embed/embedding"] == ("gather", "dot_general")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["parameters", "compute"])
def test_half_precision(where: str) -> None:
    module = Tied(dtype=jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # which Flax's LayerNorm needs in bfloat16
        params = module.init(KEY, IDS)["params"]
        if where == "parameters":
            params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
        check(lambda p, ids: module.apply({"params": p}, ids), params, adapted(params, "**/kernel"), IDS, tol=0.05)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return x + nn.Dense(8, name="down")(nn.gelu(nn.Dense(12, name="up")(x))), None


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_layers_in_a_scan(remat: bool) -> None:
    layer = nn.remat(Layer, policy=jax.checkpoint_policies.dots_saveable) if remat else Layer
    module = nn.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    params = module.init(KEY, X, None)["params"]
    adapters = adapted(params, "**/kernel")
    assert adapters["up/kernel"].a.shape == (3, 8, 2)
    check(lambda p, x: module.apply({"params": p}, x, None)[0], params, adapters, X)


def test_remat_keeps_its_policy() -> None:
    def apply(params: dict, x: jax.Array) -> jax.Array:
        block = jax.checkpoint(lambda w, x: jnp.sin(x @ w), policy=jax.checkpoint_policies.nothing_saveable)
        return block(params["kernel"], x)

    params = {"kernel": jnp.ones((8, 4))}
    adapters = adapted(params, "kernel")
    check(apply, params, adapters, X)
    program = str(jax.make_jaxpr(jax.grad(lambda a: factored(apply)(params, a, X).sum()))(adapters))
    assert "nothing_saveable" in program


def test_loops_and_branches() -> None:
    def apply(params: dict, x: jax.Array) -> jax.Array:
        w, v, c = params["body"], params["branch"], params["carried"]
        x = lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ w), x)
        x = lax.cond(x.sum() > 0, lambda x: x @ v, lambda x: (x @ v) * 2, x)
        x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=2)
        return lax.fori_loop(0, 2, lambda i, s: (s[0] @ s[1], s[1] / 2), (x, c))[0]

    params = {name: jnp.asarray(np.random.default_rng(1).normal(size=(8, 8)) / 3, jnp.float32)
              for name in ("body", "branch", "carried")}  # fmt: skip
    adapters = adapted(params, "**")
    assert_equal(apply, params, adapters, X)
    assert list(explain(apply, params, adapters, X).merged) == ["carried"]


def test_while_loop_forwards() -> None:
    def apply(params: dict, x: jax.Array) -> jax.Array:
        step = lambda s: (s[0] + 1, jnp.tanh(s[1] @ params["w"]))  # noqa: E731
        return lax.while_loop(lambda s: (s[0] < 4) & (jnp.sum(s[1] @ params["w"]) < 1e3), step, (0, x))[1]

    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(8, 8)) / 3, jnp.float32)}
    adapters = adapted(params, "w")
    np.testing.assert_allclose(
        factored(apply)(params, adapters, X), apply(merge(params, adapters), X), rtol=1e-5, atol=1e-6
    )
    assert not explain(apply, params, adapters, X).merged


@pytest.mark.slow
def test_nnx() -> None:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embed = nnx.Embed(13, 8, rngs=rngs)
            self.conv = nnx.Conv(8, 6, (3,), rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 6, 8, decode=False, rngs=rngs)

        def __call__(self, ids: jax.Array) -> jax.Array:
            return self.attention(self.conv(self.embed(ids)))

    graph, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    where = [name for name in named_leaves(params) if name.endswith(("kernel", "embedding"))]
    layouts = {"conv/kernel": Layout("conv", ins=2)}
    check(lambda p, ids: nnx.merge(graph, p, rest)(ids), params, adapted(params, where, layouts=layouts), IDS)


def test_equinox_stacked() -> None:
    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        up: eqx.nn.Linear

        def __init__(self, key: jax.Array) -> None:
            self.norm, self.up = eqx.nn.LayerNorm(8), eqx.nn.Linear(8, 8, key=key)

        def __call__(self, x: jax.Array) -> jax.Array:
            return x + jax.nn.gelu(self.up(self.norm(x)))

    params = {"blocks": eqx.filter_vmap(Block)(jax.random.split(KEY, 3)), "head": eqx.nn.Linear(8, 4, key=KEY)}

    def apply(params: dict, x: jax.Array) -> jax.Array:
        arrays, static = eqx.partition(params["blocks"], eqx.is_array)
        run = lambda x, one: (eqx.combine(one, static)(x), None)  # noqa: E731
        return jax.vmap(jax.vmap(lambda x: params["head"](lax.scan(run, x, arrays)[0])))(x)

    check(apply, params, adapted(params, ["blocks/up/weight", "head/weight"]), X)


CONVOLUTIONS = {
    "1-D dilated": ((9, 6), (3, 6, 4), {"rhs_dilation": (2,), "padding": "SAME"}, 2, False),
    "3-D strided": ((4, 5, 4, 3), (2, 2, 2, 3, 4), {"window_strides": (2, 1, 2), "padding": "VALID"}, 4, False),
    "transposed": ((5, 5, 4), (3, 3, 4, 6), {"lhs_dilation": (2, 2), "padding": ((1, 2), (1, 2))}, 3, False),
    "groups": ((6, 6, 64), (3, 3, 32, 48), {"feature_group_count": 2, "padding": "SAME"}, 3, False),
    "depthwise": ((6, 6, 8), (3, 3, 1, 8), {"feature_group_count": 8, "padding": "SAME"}, 3, True),
    "small groups": ((6, 6, 8), (3, 3, 2, 8), {"feature_group_count": 4, "padding": "SAME"}, 3, True),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    size, shape, how, ins, cheaper = CONVOLUTIONS[name]
    rng = np.random.default_rng(2)
    x, w = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, *size), shape))
    space = "DHW"[-(len(size) - 1) :]
    how = {"window_strides": (1,) * len(space), **how}
    dims = (f"N{space}C", f"{space}IO", f"N{space}C")
    apply = lambda p, x: lax.conv_general_dilated(x, p["conv"]["kernel"], dimension_numbers=dims, **how)  # noqa: E731
    params = {"conv": {"kernel": w}}
    adapters = adapted(params, "**", layouts={"**": Layout("conv", ins=ins)})
    assert_equal(apply, params, adapters, x)
    row = explain(apply, params, adapters, x).rows[0]
    assert (row.factored, [c for _, _, c in row.merged]) == ((), [True]) if cheaper else (("conv_general_dilated",), [])
    factored(apply, strict=True)(params, adapters, x)  # what is cheaper merged is no mistake


def dense(params: dict, x: jax.Array, train: bool = False, *, key: object = None) -> dict:
    y = jnp.tanh(x @ params["a"]) @ params["k"]
    y += jnp.broadcast_to(params["c"], y.shape)
    return {"y": y * 2 if train else y, "name": "dense", "key": key, "leaf": params["d"], "n": 3}


PARAMS = {
    "a": jnp.ones((8, 6)) / 9, "k": jnp.asarray(np.random.default_rng(4).normal(size=(6, 4)), jnp.float32),
    "c": jnp.zeros(4), "d": jnp.ones((8, 4)),
}  # fmt: skip


def test_static_and_odd_arguments_pass_through() -> None:
    adapters = join(adapted(PARAMS, ["a", "k", "d"]), {"c": Full(jnp.ones(4))})
    assert_equal(dense, PARAMS, adapters, X, train=True)
    got = factored(dense)(PARAMS, adapters, X, train=True, key=KEY)
    want = dense(merge(PARAMS, adapters), X, train=True, key=KEY)
    assert (got["name"], got["n"], got["key"] == KEY) == ("dense", 3, True)
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-5)
    np.testing.assert_allclose(got["leaf"], want["leaf"], rtol=1e-6)
    only_full = factored(dense)(PARAMS, full(PARAMS, "c"), X)
    np.testing.assert_array_equal(only_full["y"], dense(PARAMS, X)["y"])
    assert factored(lambda p, i, none: (i + 1, none))(PARAMS, adapters, jnp.int32(2), None) == (3, None)


@pytest.mark.slow
def test_many_adapters_on_one_base() -> None:
    several = [stirred(lora(PARAMS, ["a", "k"], key=KEY, rank=2), seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    y = lambda p, a, x: factored(dense)(p, a, x)["y"]  # noqa: E731
    grads = jax.vmap(jax.grad(lambda a, x: (y(PARAMS, a, x) ** 2).sum()), (0, None))
    program = jax.make_jaxpr(grads)(stacked, X)
    assert "4,8,6]" not in str(program)  # no weight, nor its gradient, for each adapter
    for i, one in enumerate(several):
        got = jax.tree.map(lambda g: g[i], grads(stacked, X))  # noqa: B023
        want = jax.grad(lambda a: (dense(merge(PARAMS, a), X)["y"] ** 2).sum())(one)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-5, atol=1e-4), got, want)
    each = jax.jit(jax.vmap(y, (None, 0, 0)))(PARAMS, jax.tree.map(lambda x: x[:3], stacked), X)
    for i in range(3):
        np.testing.assert_allclose(each[i], dense(merge(PARAMS, several[i]), X[i])["y"], rtol=1e-4, atol=1e-5)


def test_no_gradient_of_a_weight_is_computed() -> None:
    """Both products with the outer dimensions of a weight are gone from the program."""
    adapters = adapted(PARAMS, ["a", "k"])

    def gradient(function: object) -> set[str]:
        program = jax.make_jaxpr(jax.grad(lambda a: function(a)["y"].sum()))(adapters)
        return {str(v.aval) for eqn in program.jaxpr.eqns for v in eqn.outvars if eqn.primitive.name == "dot_general"}

    weights = {"float32[8,6]", "float32[6,8]", "float32[6,4]", "float32[4,6]"}
    assert gradient(lambda a: dense(merge(PARAMS, a), X)) & weights
    assert not gradient(lambda a: factored(dense)(PARAMS, a, X)) & weights


def test_functions_with_their_own_derivative_keep_it() -> None:
    @jax.custom_vjp
    def rounded(w: jax.Array) -> jax.Array:
        return jnp.round(w * 4) / 4

    rounded.defvjp(lambda w: (rounded(w), None), lambda _, g: (g,))
    params = {"a": PARAMS["a"], "k": PARAMS["k"]}
    apply = lambda p, x: jax.nn.relu(x @ rounded(p["a"])) @ p["k"]  # noqa: E731
    adapters = adapted(params, ["a", "k"])
    assert_equal(apply, params, adapters, X)
    assert list(explain(apply, params, adapters, X).merged) == ["a"]


def test_the_table_and_strictness() -> None:
    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = x @ params["block_0"]["kernel"] @ params["block_1"]["kernel"]
        return x + jnp.sum(params["norm"] ** 2) + params["flat"].reshape(-1)[0] + params["bias"]

    eye = {"kernel": jnp.eye(8)}
    params = {"block_0": eye, "block_1": eye, "norm": jnp.eye(8), "flat": jnp.eye(8), "bias": jnp.ones(()), "z": eye}
    adapters = join(adapted(params, ["**/kernel", "norm", "flat"]), {"bias": Full(jnp.zeros(()))})
    assert str(explain(apply, params, adapters, jax.ShapeDtypeStruct((2, 8), jnp.float32))).splitlines() == [
        "leaf                 kind  rank  in the program",
        "bias                 full        a value of its own",
        "block_{0..1}/kernel  lora     2  factored in dot_general",
        "flat                 lora     2  merged for reshape: it melts inputs and outputs into one axis",
        "norm                 lora     2  merged for integer_pow: it is no product with activations",
        "z/kernel             lora     2  not used",
    ]
    with pytest.raises(PeftError, match=r"2 adapted leaves.*\n.*'flat', merged for reshape.*keep the axes.*\n.*'norm'"):
        factored(apply, strict=True)(params, adapters, X)
    with pytest.raises(PeftError, match="no such leaf"):
        factored(apply)(params, {"block_2/kernel": adapters["norm"]}, X)
    with pytest.raises(PeftError, match="does not fit"):
        factored(apply)(params | {"norm": jnp.ones((3, 8))}, adapters, X)
