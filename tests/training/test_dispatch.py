"""Convolutions on CPU are stepped from the host: the same numbers as the loop on the device gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import CLASSES, HITS, close, examples, same

from tljax.models import mlp
from tljax.objectives import cross_entropy, stateless
from tljax.plans import plan
from tljax.training import NonFiniteError, fit, fit_many
from tljax.training.dispatch import Steps, _primitives
from tljax.types import Model, Output

X, Y = examples(24, features=36)
X = X.reshape(24, 6, 6, 1)
SGD, ENTROPY = optax.sgd(0.2, momentum=0.9), cross_entropy()


def apply(params, x, *, train=False, key=None, frozen=frozenset()):
    x = jax.lax.conv_general_dilated(x, params["backbone"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    features = jnp.mean(jax.nn.relu(x), axis=(1, 2))
    return Output(features @ params["head"], features)


def init(key, x):
    a, b = jax.random.split(key)
    return {"backbone": jax.random.normal(a, (3, 3, 1, 4)), "head": jax.random.normal(b, (4, CLASSES))}


CONV = Model(init, apply, name="conv net")
SHORT = {"optimizer": SGD, "steps": 10, "batch_size": 8, "eval_every": 5, "progress": False, "metric": HITS}


def start(seed=0):
    return init(jax.random.key(seed), X)


def run(**options):
    return fit(CONV, start(), ENTROPY, plan(), (X, Y), (X, Y), **SHORT | options)


def stack(**options):
    params = jax.tree.map(lambda *a: jnp.stack(a), start(0), start(1))
    return fit_many(CONV, params, ENTROPY, plan(), (X, Y), (X, Y), **SHORT | {"seeds": [0, 3]} | options)


@pytest.fixture(scope="module")
def stepped():
    return run()


@pytest.fixture
def looping(monkeypatch):
    """As on an accelerator: everything in the compiled loop."""
    monkeypatch.setattr(Steps, "_loops_slowly", lambda self, run, streams: False)


def test_convolutions_are_found_wherever_they_are():
    def loss(params, x):
        return jnp.sum(apply(params, x).logits)

    def nested(params, x):
        grads = jax.lax.map(lambda p: jax.grad(jax.checkpoint(loss))(p, x), params)
        return jax.lax.cond(x[0, 0, 0, 0] > 0, lambda: grads, lambda: params)

    params = jax.tree.map(lambda a: a[None], start())
    assert "conv_general_dilated" in set(_primitives(jax.make_jaxpr(nested)(params, X)))
    assert "conv_general_dilated" not in set(_primitives(jax.make_jaxpr(lambda x: jnp.tanh(x @ x[..., :6]))(X[..., 0])))


@pytest.mark.slow
def test_steps_from_the_host_are_those_of_the_loop(stepped, looping):
    looped = run(optimizer=optax.sgd(0.2, momentum=0.9))  # another object, so another program
    close(looped.last, stepped.last)
    assert len(looped.history) == len(stepped.history)
    for a, b in zip(looped.history, stepped.history):
        assert a.keys() == b.keys()
        np.testing.assert_allclose([a[k] for k in a if k != "split"], [b[k] for k in b if k != "split"], rtol=1e-4)


@pytest.mark.slow
def test_a_stack_is_its_runs_bit_for_bit(stepped):
    found = stack()
    assert same(jax.tree.map(lambda a: a[0], found.last), stepped.last)
    assert same(jax.tree.map(lambda a: a[0], found.params), stepped.params)


@pytest.mark.slow
def test_a_stopped_run_of_a_stack_stays_as_it_is():
    long = stack(rates=[1.0, 1e-12], patience=2, steps=40)
    short = stack(rates=[1.0, 1e-12], steps=10)
    assert same(jax.tree.map(lambda a: a[1], long.last), jax.tree.map(lambda a: a[1], short.last))
    assert long.steps > 10


def test_chunks_and_resuming_change_nothing(stepped, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(row):
        if row["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        run(run_dir=tmp_path, save_every=3, on_log=[stop])
    assert same(run(run_dir=tmp_path, save_every=3).last, stepped.last)


def test_a_failure_is_named_by_its_step():

    bomb = stateless(
        lambda s: (jnp.mean(s.outputs["train"].logits) / (7 - s.step.astype(jnp.float32)), {"x": jnp.float32(1)}),
        "bomb",
    )
    with pytest.raises(NonFiniteError, match="at step 8"):
        fit(CONV, start(), bomb, plan(), (X, Y), **SHORT | {"steps": 20})


@pytest.mark.slow
def test_the_cost_of_a_step_is_that_of_its_matrix_products():
    """Two dense layers: forward, gradients of both kernels and of the hidden layer; more is element by element."""
    x = np.zeros((64, 40), np.float32)
    y = (np.arange(64) % 3).astype("int32")
    model = mlp((80,), num_classes=3)
    params = model.init(jax.random.key(0), x)
    options = {"train": (x, y), "steps": 3, "batch_size": 16, "progress": False, "optimizer": optax.sgd(0.1)}
    cost = fit(model, params, cross_entropy(), **options).step_cost()
    products = 2 * 16 * (2 * 40 * 80 + 3 * 80 * 3)
    assert products < cost.flops < 1.3 * products
    assert cost.peak_bytes > x.nbytes  # the data lie on the device, and are arguments
    operands = 4 * (2 * (16 * 40 + 40 * 80 + 16 * 80) + 3 * (16 * 80 + 80 * 3 + 16 * 3))
    assert operands < cost.bytes_accessed < 5 * operands  # of one step, though the program is a loop
    stack = jax.tree.map(lambda leaf: np.stack([leaf] * 3), params)
    many = fit_many(model, stack, cross_entropy(), seeds=[0, 1, 2], **options).step_cost()
    assert many.flops == cost.flops  # of one run
    assert many.peak_bytes > cost.peak_bytes
