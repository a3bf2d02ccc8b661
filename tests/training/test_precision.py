"""Computing in bfloat16 and float16 around float32 masters: by hand, by the types in the program, by torch's scaler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_cases import HITS, TANH, batch, close, examples, normed, same

from tljax import models
from tljax.objectives import Phase, Term, cross_entropy, dann, stateless
from tljax.peft import attach, lora
from tljax.plans import freeze, plan
from tljax.training import FitError, NonFiniteError, StepError, fit, fit_many, make_step, scaling
from tljax.training.precision import computing_in
from tljax.tree import named_leaves
from tljax.types import Batch, is_state

X, Y = examples()
START = TANH.init(jax.random.key(1), jnp.asarray(X))


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def products(jaxpr):
    """The dtypes of what matrix products and convolutions of a program read."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield from (v.aval.dtype.name for v in eqn.invars)
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from products(inner)


IMAGES, TOKENS = jnp.zeros((2, 32, 32, 3)), {"ids": jnp.ones((2, 6), jnp.int32), "mask": jnp.ones((2, 6), jnp.int32)}
CASES = {
    "mlp": ({}, jnp.zeros((2, 5))),
    "lenet": ({}, jnp.zeros((2, 28, 28, 1))),
    "resnet8": ({"width": 4}, IMAGES),
    "wide-resnet16-4": ({}, IMAGES),
    "mobilenet-v1-0.25": ({}, IMAGES),
    "convnext-tiny": ({}, IMAGES),
    "vit-ti": ({"depth": 1, "layer_scale": 1.0, "pool": "mean"}, IMAGES),
    "dinov2-s14": ({"depth": 1}, IMAGES[:, :28, :28]),
    "bert-tiny": ({}, TOKENS),
    "minilm-l6": ({"depth": 1}, TOKENS),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CASES)
def test_models_of_the_catalogue_follow_the_type_in_every_product(name):
    options, x = CASES[name]
    model = models.build(name, 3, **options)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    apply = functools.partial(computing_in(model, "bfloat16").apply, train=True)
    program, out = jax.make_jaxpr(apply, return_shape=True)(params, x, key=jax.random.key(0))
    assert set(products(program)) == {"bfloat16"}
    assert dtypes((out.logits, out.features, out.stats)) == {"float32"}


def test_a_step_is_the_one_written_out_by_hand():
    optimizer = optax.sgd(0.1, momentum=0.9)
    step = make_step(TANH, cross_entropy(), plan().resolve(START), optimizer, precision="bfloat16")
    state = step.init(START, batch(), seed=0)

    @jax.jit
    def by_hand(params, opt):
        def loss(params):
            narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
            logits = TANH.apply(narrow, jnp.asarray(X, jnp.bfloat16)).logits.astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()

        updates, opt = optimizer.update(jax.grad(loss)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    params, opt = START, optimizer.init(START)
    for _ in range(3):
        state, _ = jax.jit(step.update)(state, batch())
        with jax.numpy_dtype_promotion("standard"):
            params, opt = by_hand(params, opt)
    close(state.params, params, rtol=1e-6, atol=1e-7)
    assert dtypes(state) == {"float32"}
    assert not np.allclose(state.params["head"]["w"], START["head"]["w"])


def test_masters_are_float32_and_frozen_leaves_narrow():
    model = normed(0.1)
    params = model.init(jax.random.key(0), jnp.asarray(X))
    frozen = plan(freeze("backbone/dense_0/**"), freeze("backbone/norm_0/**"))
    step = make_step(model, cross_entropy(), frozen.resolve(params), optax.adam(1e-3), precision="bfloat16", ema=0.9)
    state = step.init(params, batch(), seed=0)
    held = named_leaves(state.frozen)
    assert {name for name, leaf in held.items() if leaf.dtype == jnp.bfloat16} == {
        f"backbone/{name}" for name in ("dense_0/bias", "dense_0/kernel", "norm_0/bias", "norm_0/scale")
    }
    assert all(leaf.dtype == jnp.float32 for name, leaf in held.items() if is_state(name))
    assert dtypes((state.trainable, state.stats, state.opt, state.average)) == {"float32"}


@pytest.mark.slow
def test_the_result_has_frozen_leaves_as_they_were_given():
    options = {"optimizer": optax.sgd(0.1), "steps": 4, "batch_size": 8, "metric": HITS, "progress": False}
    given = (TANH, START, cross_entropy(), plan(freeze("backbone/**")), (X, Y), (X, Y))
    narrow, whole = fit(*given, precision="bfloat16", **options), fit(*given, **options)
    for found in (narrow.params, narrow.last):
        assert same(found["backbone"], START["backbone"])
        assert found["backbone"]["w"] is not START["backbone"]["w"]
    close(narrow.last["head"], whole.last["head"], atol=0.01, rtol=0.05)
    assert not same(narrow.last, whole.last)


def test_parameters_given_in_half_precision_get_masters():
    given = jax.tree.map(lambda a: a.astype(jnp.bfloat16), START)
    step = make_step(TANH, cross_entropy(), plan().resolve(given), optax.sgd(1e-4), precision="bfloat16")
    state, _ = jax.jit(step.update)(step.init(given, batch(), seed=0), batch())
    assert dtypes(state.params) == {"float32"}
    narrow = state.params["head"]["w"].astype(jnp.bfloat16)
    assert same(narrow, given["head"]["w"])  # a move that bfloat16 does not resolve
    assert not same(state.params["head"]["w"], given["head"]["w"].astype(jnp.float32))


@pytest.mark.slow
def test_statistics_that_flax_begins_in_float32_stay_so_where_data_are_in_float64():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(not train, name="norm")(nn.Dense(8, name="dense")(x))
            return nn.Dense(3, name="head")(nn.relu(x))

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        model, x = models.from_flax(Net()), np.float64(X)
        params = model.init(jax.random.key(0), jnp.asarray(x))
        data = {"train": (x, Y), "source": (x, Y), "target": (x + 1, Y)}
        options = {"optimizer": optax.adam(1e-2), "steps": 3, "batch_size": 8, "progress": False}
        result = fit(model, params, cross_entropy() + dann(), plan(), data, **options)
        before, after = (named_leaves(tree) for tree in (params, result.params))
    statistics = list(filter(is_state, after))
    assert len(statistics) == 2
    for name in statistics:
        assert after[name].dtype.name == "float32"
        assert np.all(np.asarray(after[name] != before[name])), name


@pytest.mark.slow
def test_nnx_modules_and_adapters_compute_in_the_narrow_type():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.norm = nnx.Linear(5, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
            self.head = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.norm(self.dense(x))))

    model, x = models.from_nnx(Net), jnp.asarray(X)
    base = model.init(jax.random.key(0), x)
    adapted, params = attach(model, base, lora(base, "backbone/dense/kernel", key=jax.random.key(1), rank=2))
    assert set(products(jax.make_jaxpr(computing_in(adapted, "float16").apply)(params, x))) == {"float16"}
    only = plan(freeze("backbone/**"), freeze("head/**"))
    options = {"optimizer": optax.adam(1e-2), "steps": 3, "batch_size": 8, "progress": False, "precision": "float16"}
    result = fit(adapted, params, cross_entropy(), only, (X, Y), **options)
    assert same(result.params["backbone"], params["backbone"])
    assert not same(result.params["adapters"], params["adapters"])


OVERFLOWS = [0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]


def test_the_scale_moves_as_torchs_does(monkeypatch):
    torch = pytest.importorskip("torch")
    scaler = torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], 0.0)
    expected = []
    for bad in OVERFLOWS:
        scaler.scale((weight * (float("inf") if bad else 1.0)).sum()).backward()
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        expected.append(scaler.get_scale())
    monkeypatch.setattr(scaling, "EVERY", 3)
    step = make_step(TANH, cross_entropy(), plan().resolve(START), optax.adam(1e-2), precision="float16", ema=0.9)
    state, update, found = step.init(START, batch(), seed=0), jax.jit(step.update), []
    good, bad = batch()["train"], Batch(jnp.full_like(X, 1e30), jnp.asarray(Y))
    for overflow in OVERFLOWS:
        before, (state, _) = state, update(state, {"train": bad if overflow else good})
        found.append(state.scaling.scale.item())
        assert bool(state.scaling.skipped) == bool(overflow)
        unmoved = {"step": None, "scaling": None}
        assert same(before._replace(**unmoved), state._replace(**unmoved)) == bool(overflow)
        assert state.step == before.step + 1
    assert found == expected


def test_one_turn_that_overflows_takes_back_the_whole_step():
    def apply(owned, scene):
        value = jnp.mean(scene.outputs["train"].logits ** 2)
        return value * jnp.float32(jnp.inf if scene.phase == "follow" else 1), (), {}

    game = Term(apply, description="game()", phases=(Phase("lead"), Phase("follow", learns="backbone/**")))
    step = make_step(TANH, game, plan().resolve(START), optax.adam(0.1), precision="float16")
    state, _ = jax.jit(step.update)(step.init(START, batch(), seed=0), batch())
    assert same(state.params, START)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt))
    assert (int(state.step), state.scaling.scale.item()) == (1, 2.0**15)


@pytest.mark.slow
def test_scaling_saves_gradients_that_float16_would_lose():
    tiny = stateless(lambda scene: (1e-9 * jnp.sum(scene.outputs["train"].logits), {}), "tiny()", "train")
    given = {"train": batch()["train"]}
    moves = []
    for precision in ("float32", "float16"):
        step = make_step(TANH, tiny, plan().resolve(START), optax.sgd(1e6), precision=precision)
        state, _ = jax.jit(step.update)(step.init(START, given, seed=0), given)
        moves.append(jax.tree.map(jnp.subtract, state.params, START))
    close(moves[1], moves[0], rtol=0.02, atol=1e-5)
    lost = jax.grad(lambda w: (jnp.asarray(X, "float16") @ w).sum().astype("float32") * 1e-9)(jnp.ones(5, "float16"))
    assert not lost.any()


def half(**options):
    given = {"optimizer": optax.adam(1e-2), "batch_size": 6, "metric": HITS, "progress": False, "precision": "float16"}
    return functools.partial(fit, TANH, START, cross_entropy(), plan(), valid=(X, Y), **(given | options))


@pytest.mark.slow
def test_a_skipped_step_is_no_failure_and_leaves_no_trace_in_the_log():
    x = X.copy()
    x[3] = 1e30
    result = half(steps=16, log_every=4, eval_every=8)(train=(x, Y))
    rows = [row for row in result.history if row["split"] == "train"]
    assert [row["loss_scale"] for row in rows] == [2.0**15, 2.0**14, 2.0**13, 2.0**12]  # four batches an epoch
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.last))


@pytest.mark.slow
def test_a_run_whose_every_step_overflows_fails_and_says_so():
    with pytest.raises(NonFiniteError, match="float16 are not finite at step 17, whatever the scale of the loss"):
        half(steps=30)(train=(np.full_like(X, 1e30), Y))


@pytest.mark.slow
def test_a_broken_off_run_goes_on_with_its_scale(tmp_path):
    x = X.copy()
    x[3] = 1e30

    def stop(row):
        if row["step"] == 8 and row["split"] == "train":
            raise InterruptedError

    plain = half(steps=16, log_every=4, eval_every=8, save_every=4)
    whole = plain(train=(x, Y), run_dir=tmp_path / "a")
    with pytest.raises(InterruptedError):
        plain(train=(x, Y), run_dir=tmp_path / "b", on_log=[stop])
    again = plain(train=(x, Y), run_dir=tmp_path / "b")
    assert same(again.last, whole.last)
    assert again.history == whole.history


@pytest.mark.slow
def test_a_stack_has_a_scale_for_each_run():
    params = jax.tree.map(lambda a: jnp.stack([a, a]), START)
    x = X.copy()
    x[3] = 1e30
    result = fit_many(
        TANH, params, cross_entropy(), plan(freeze("backbone/b")), (x, Y), optimizer=optax.sgd(0.1), seeds=[0, 1],
        subsets=[range(4), range(4, 24)], steps=3, batch_size=4, precision="float16", progress=False, log_every=3,
    )  # fmt: skip
    assert [row["loss_scale"] for row in result.history] == [2.0**13, 2.0**16]
    assert [bool(np.isnan(row["loss"])) for row in result.history] == [True, False]
    assert same(jax.tree.map(lambda a: a[0], result.last), START)


def test_other_types_are_refused():
    with pytest.raises(FitError, match="precision is one of 'float32', 'bfloat16', 'float16'; found 'fp16'"):
        half(precision="fp16", steps=1)(train=(X, Y))
    with pytest.raises(StepError, match="found 'half'"):
        make_step(TANH, cross_entropy(), plan().resolve(START), optax.sgd(0.1), precision="half")
