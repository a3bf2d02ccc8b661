"""Any function of parameters: primitives one by one, and what JAX does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equality import assert_equal
from jax import lax

from tljax.peft import DoRA, Layout, LoRA, Scale, explain

D, E, R, B = 12, 10, 2, 5


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def adapter(which: str, shape: tuple[int, ...], **how: object) -> object:
    """A random adapter for a weight of `shape`: "lora", "dora", or a scale of its inputs, "in"."""
    layout = Layout(**how)
    stack, ins, outs = layout.parts(shape)
    a, b = 0.4 * normal(*stack, *ins, R, seed=1), 0.4 * normal(*stack, R, *outs, seed=2)
    constants = {"scale": jnp.float32(0.7)}
    if which == "lora":
        return LoRA(a, b, constants, layout)
    if which == "dora":
        return DoRA(a, b, 1 + normal(*stack, *outs, seed=3), constants, layout)
    return Scale(1 + normal(*stack, *ins, seed=4), "in", layout)


X = normal(B, D, seed=9)

PRODUCTS = {
    "right": (lambda w, x: x @ w, (D, E), {}, X),
    "left": (lambda w, x: (w.T @ x.T).T, (D, E), {}, X),
    "torch": (lambda w, x: jax.vmap(lambda x: w @ x)(x), (E, D), {"transposed": True}, X),
    "outputs summed": (lambda w, x: x @ w.T, (E, D), {}, X),
    "heads": (lambda w, x: jnp.einsum("bd,dhk->bhk", x, w), (D, 2, 5), {}, X),
    "from heads": (lambda w, x: jnp.einsum("bhk,hkd->bd", x.reshape(B, 3, 4), w), (3, 4, E), {"ins": 2}, X),
    "heads as batch": (lambda w, x: jnp.einsum("bhk,dhk->bhd", x.reshape(B, 3, 4), w), (E, 3, 4), {}, X),
    "reshaped": (lambda w, x: x @ w.reshape(D, -1), (3, 4, 2, 5), {"ins": 2}, X),
    "stack": (lambda w, x: jnp.einsum("bd,lde->lbe", x, w), (3, D, E), {"stack": 1}, X),
    "stack as batch": (lambda w, x: jnp.einsum("lbd,lde->lbe", jnp.stack([x, x, x]), w), (3, D, E), {"stack": 1}, X),
    "layer of a stack": (lambda w, x: x @ w[1], (3, D, E), {"stack": 1}, X),
    "layer by number": (lambda w, x: x @ w[jnp.argmax(x) % 3], (3, D, E), {"stack": 1}, X),
    "layers moved": (lambda w, x: x @ jnp.moveaxis(w, 0, -1)[..., 2], (3, D, E), {"stack": 1}, X),
    "columns": (lambda w, x: x @ w[:, 2:7:2], (D, E), {}, X),
    "fused": (lambda w, x: [x @ part for part in jnp.split(w, [4, 6], axis=1)], (D, E), {}, X),
    "reversed": (lambda w, x: x @ w[::-1], (D, E), {}, X),
    "unit axes": (lambda w, x: x[None] @ jnp.broadcast_to(w[None], (2, D, E))[1:], (D, E), {}, X),
    "scaled": (lambda w, x: x @ (-w * 0.5 / 3.0), (D, E), {}, X),
    "cast": (lambda w, x: x @ w.astype(jnp.float16).astype(jnp.float32), (D, E), {}, X),
    "lookup": (lambda w, i: w[i], (D, E), {"kind": "embedding"}, jnp.array([[0, 3], [11, -1]])),
    "take": (lambda w, i: jnp.take(w, i, axis=0, mode="clip"), (D, E), {"kind": "embedding"}, jnp.array([4, 99])),
    "one row": (lambda w, i: w[i[0]], (D, E), {"kind": "embedding"}, jnp.array([4, 1])),
    "columns looked up": (lambda w, i: w[:, i], (E, D), {"transposed": True}, jnp.array([4, 1])),
    "one hot": (lambda w, i: jax.nn.one_hot(i, D) @ w, (D, E), {"kind": "embedding"}, jnp.array([4, 1])),
    "tied": (lambda w, i: w[i] @ w.T, (D, E), {"kind": "embedding"}, jnp.array([4, 1])),
    "default precision": (lambda w, x: lax.dot(x, w, preferred_element_type=jnp.float32), (D, E), {}, X),
}


@pytest.mark.one_in(15)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    function, shape, layout, x = PRODUCTS[name]
    # DoRA has both factors and a scale of the outputs; the other weight has a scale of its inputs.
    params = {"both": normal(*shape, seed=5), "scale": normal(*shape, seed=6)}
    adapters = {"both": adapter("dora", shape, **layout), "scale": adapter("in", shape, **layout)}
    apply = lambda p, x: [function(w, x) for w in p.values()]  # noqa: E731
    assert_equal(apply, params, adapters, x, tol=2e-3 if name == "cast" else 1e-5)
    # A scale along inputs and layers would need activations of every layer.
    assert list(explain(apply, params, adapters, x).merged) == (["scale"] if name == "stack" else [])
