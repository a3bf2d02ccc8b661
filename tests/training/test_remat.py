"""Computing layers again: the same numbers from less memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import TANH, close, examples

from tljax import models
from tljax.models import ModelError
from tljax.models.remat import CPU_OPTIONS, rematerialised
from tljax.objectives import cross_entropy
from tljax.peft import attach, lora
from tljax.plans import freeze, plan
from tljax.training import FitError, fit, make_step
from tljax.types import Batch

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(8, 16, 16, 3)), jnp.float32)
TOKENS = {"ids": jnp.asarray(RNG.integers(1, 50, (8, 16)), jnp.int32), "mask": jnp.ones((8, 16), jnp.int32)}
Y = jnp.arange(8, dtype=jnp.int32) % 3
VIT = models.vit("ti", 3, width=16, depth=2, heads=2, dropout=0.1)
BERT = models.bert("tiny", 3, width=16, depth=2, hidden=64, vocab=50, positions=16)


def compiled(model, params, x, remat):
    """A training step in float32, compiled, with its state and batches."""
    step = make_step(model, cross_entropy(), plan().resolve(params), optax.sgd(0.1), remat=remat)
    batches = {"train": Batch(x, Y)}
    state = jax.jit(step.init, static_argnames="seed")(params, batches, seed=0)
    options = {} if remat is None else CPU_OPTIONS
    return jax.jit(step.update).lower(state, batches).compile(compiler_options=options), state, batches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "x", "remat"),
    [(VIT, IMAGES, "blocks"), pytest.param(BERT, TOKENS, "dots", marks=pytest.mark.slow)],
    ids=["vit", "bert"],
)
def test_a_step_is_the_same_and_takes_less_memory(model, x, remat):
    params = model.init(jax.random.key(0), x)
    after, memory = {}, {}
    for policy in (None, remat):
        program, state, batches = compiled(model, params, x, policy)
        after[policy] = program(state, batches)
        memory[policy] = program.memory_analysis().temp_size_in_bytes
    close(after[remat][0].params, after[None][0].params, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after[remat][1]["grad_norm"], after[None][1]["grad_norm"], rtol=1e-5)
    assert memory[remat] < 0.8 * memory[None], memory


def slopes(model, params, x, policy):
    def loss(params):
        output = rematerialised(model, policy).apply(params, x, train=True, key=jax.random.key(2))
        return jnp.mean(output.logits**2), output.stats

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.slow
def test_batch_statistics_and_parameter_names_are_the_same():
    model = models.build("resnet8", 3, width=4)
    params = model.init(jax.random.key(0), IMAGES)
    plain = slopes(model, params, IMAGES, None)
    for policy in ("blocks", "dots"):
        close(slopes(model, params, IMAGES, policy), plain, rtol=1e-5, atol=1e-6)
        assert rematerialised(model, policy).groups == model.groups


def test_modules_of_others_have_blocks_where_their_groups_are_layers():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            for i in range(2):
                x = nn.Dropout(0.5, deterministic=not train)(nn.gelu(nn.Dense(8, name=f"dense_{i}")(x)))
            return nn.Dense(3)(x)

    x = jnp.asarray(examples()[0])
    groups = ("backbone/dense_0/**", "backbone/dense_1/**", "head/**")
    model = models.from_flax(Net(), groups=groups)
    params = model.init(jax.random.key(0), x)
    close(slopes(model, params, x, "blocks"), slopes(model, params, x, None))
    with pytest.raises(ModelError, match="no group of Net is a layer of a Linen module; name them, as in from_flax"):
        slopes(models.from_flax(Net()), params, x, "blocks")
    with pytest.raises(ModelError, match="no group of tanh net is a layer"):
        slopes(TANH, TANH.init(jax.random.key(0), x), x, "blocks")
    plain = TANH.init(jax.random.key(0), x)
    close(slopes(TANH, plain, x, "dots"), slopes(TANH, plain, x, None))


@pytest.mark.slow
def test_fit_takes_it_with_adapters_and_in_half_precision():
    x, y = examples(8)
    model = models.mlp((8, 8), num_classes=3)
    base = model.init(jax.random.key(0), jnp.asarray(x))
    adapted, params = attach(model, base, lora(base, "backbone/**/kernel", key=jax.random.key(1), rank=2))
    only = plan(freeze("backbone/**"))
    options = {"optimizer": optax.sgd(0.1), "steps": 2, "batch_size": 4, "progress": False, "precision": "bfloat16"}
    plain = fit(adapted, params, cross_entropy(), only, (x, y), **options)
    for remat in ("blocks", "dots"):
        found = fit(adapted, params, cross_entropy(), only, (x, y), remat=remat, **options)
        close(found.params, plain.params, rtol=1e-2, atol=1e-3)


def test_other_policies_are_refused():
    with pytest.raises(FitError, match="remat is one of 'blocks', 'dots', or None; found 'all'"):
        fit(TANH, None, cross_entropy(), optimizer=optax.sgd(0.1), steps=1, remat="all")
    with pytest.raises(ModelError, match="found 'all'"):
        rematerialised(TANH, "all")
