"""The point of `factored`: no gradient of the weights is paid for."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import tljax as tl
from tljax.peft import factored, lora, merge


def flops(step: Any, *given: Any) -> float:
    return jax.jit(step).lower(*given).compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_a_lora_step_takes_seven_tenths_of_a_full_one() -> None:
    # The shape of ViT-B but for the depth, which keeps it quick to compile.
    model = tl.models.vit("b", 10, patch=16, depth=2)
    x, y = jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    where = ["backbone/block_*/attention/*/kernel", "backbone/block_*/mlp/*/kernel"]
    adapters = jax.eval_shape(lambda p: lora(p, where, key=jax.random.key(0), rank=8), params)

    def loss(params: Any, x: Any, y: Any, apply: Any = model.apply) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(apply(params, x).logits), y[:, None], axis=1))

    full = flops(lambda p, x, y: jax.value_and_grad(loss)(p, x, y), params, x, y)
    merged = flops(lambda a, p, x, y: jax.grad(lambda a: loss(merge(p, a), x, y))(a), adapters, params, x, y)
    beside = factored(model.apply)
    split = flops(
        lambda a, p, x, y: jax.value_and_grad(lambda a: loss(p, x, y, lambda p, x: beside(p, a, x)))(a),
        adapters, params, x, y,
    )  # fmt: skip
    assert split <= 0.72 * full
    assert merged > 0.95 * full
