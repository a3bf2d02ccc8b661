"""Many heads or adapters on one frozen base, which is held once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_dispatch import CONV
from test_dispatch import X as IMAGES
from test_dispatch import Y as KINDS
from training_cases import HITS, TANH, examples, same

from tljax.objectives import cross_entropy
from tljax.plans import freeze, linear_probe, plan, unfreeze
from tljax.training import fit, fit_many
from tljax.training.inputs import FitError, own_subsets
from tljax.training.options import options_from
from tljax.training.prepare import prepare
from tljax.tree import NoMatchError, named_leaves, nbytes

X, Y = examples(40)
TRAIN, VALID = (X[:24], Y[:24]), (X[24:], Y[24:])
ENTROPY, ADAM = cross_entropy(), optax.adam(0.05)
SHORT = {"optimizer": ADAM, "steps": 12, "batch_size": 8, "eval_every": 4, "progress": False, "metric": HITS}
BASE = TANH.init(jax.random.key(9), X)["backbone"]


def heads(count, base=BASE):
    own = jax.vmap(lambda key: TANH.init(key, X)["head"])(jax.random.split(jax.random.key(0), count))
    return {"backbone": base, "head": own}


def many(count, p=linear_probe(), objective=ENTROPY, **options):  # noqa: B008
    options = {"seeds": list(range(count)), "shared": "backbone/**"} | SHORT | options
    return fit_many(TANH, heads(count), objective, p, TRAIN, VALID, **options)


def equals_single_fits(result, count, exact=True):
    for i in range(count):
        own = heads(count)
        begin = own | {"head": jax.tree.map(lambda a, i=i: a[i], own["head"])}
        alone = fit(TANH, begin, ENTROPY, linear_probe(), TRAIN, VALID, seed=i, **SHORT)
        if exact:
            assert same(result.of(i), alone.params)
        else:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result.of(i), alone.params
            )
        np.testing.assert_allclose(result.best_value[i], alone.best_value)


@pytest.mark.slow
def test_runs_on_one_base_are_the_runs_alone():
    result = many(2)
    equals_single_fits(result, 2)
    assert same(result.params["backbone"], BASE)
    assert same(result.last["backbone"], BASE)
    assert result.shared == {"backbone/w", "backbone/b"}


def started(count, shared):
    params = heads(count)
    if not shared:
        params |= {"backbone": jax.tree.map(lambda a: jnp.stack([a] * count), BASE)}
    names = frozenset({"backbone/w", "backbone/b"}) if shared else frozenset()
    options = options_from({"steps": 5, "metric": HITS})
    prepared = prepare(TANH, params, ENTROPY, linear_probe(), TRAIN, VALID, ADAM, options, shared=names)
    streams = own_subsets(prepared.streams, None, count)
    run = prepared.program.start(params, jnp.arange(count, dtype=jnp.uint32), jnp.ones(count), streams)
    return prepared, run, streams


@pytest.mark.slow
def test_the_base_is_held_once_however_many_runs_there_are():
    sizes = {count: nbytes(started(count, shared=True)[1].state.frozen) for count in (1, 7)}
    assert set(sizes.values()) == {nbytes(BASE)}
    assert nbytes(started(7, shared=False)[1].state.frozen) == 7 * nbytes(BASE)


@pytest.mark.parametrize("shared", [True, False])
def test_side_by_side_the_base_has_no_copy_for_each_run(monkeypatch, shared):
    monkeypatch.setattr("tljax.training.stack.jax.default_backend", lambda: "gpu")
    prepared, run, streams = started(7, shared)
    text = prepared.program.advance.lower(run, streams, jnp.int32(3)).as_text()
    assert ("tensor<7x5x4xf32>" in text) is not shared  # the base is [5, 4]
    if shared:
        assert "tensor<5x4xf32>" in text


@pytest.mark.slow
def test_side_by_side_the_results_are_the_same(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tljax.training.stack.jax.default_backend", lambda: "gpu")
        result = many(2, objective=cross_entropy())  # an objective of its own, so that the program is made anew
    equals_single_fits(result, 2, exact=False)


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.slow
def test_checkpoints_hold_the_base_once_and_a_stack_resumes(tmp_path):
    def end(row):
        if row["step"] >= 8:
            raise Stop

    whole = many(3)
    with pytest.raises(Stop):
        many(3, run_dir=tmp_path, save_every=2, on_log=[end])
    newest = max((tmp_path / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    leaves = json.loads((newest / "meta" / "metadata").read_text())["leaves"]
    shapes = {name: spec for name, spec in leaves.items() if "frozen" in name} if isinstance(leaves, dict) else leaves
    assert "[5, 4]" in str(shapes)
    assert "[3, 5, 4]" not in str(shapes)
    again = many(3, run_dir=tmp_path, save_every=2)
    assert same((again.params, again.last), (whole.params, whole.last))
    assert again.history == whole.history


@pytest.mark.slow
def test_convolutions_step_by_step():
    params = CONV.init(jax.random.key(0), IMAGES)
    kernel = next(name for name in named_leaves(params) if name.startswith("backbone"))
    top = kernel.split("/")[0]
    stack = {k: v if k == top else jax.tree.map(lambda a: jnp.stack([a, 2 * a]), v) for k, v in params.items()}
    options = SHORT | {"steps": 3, "eval_every": 3}
    p = plan(freeze(f"{top}/**"))
    result = fit_many(CONV, stack, ENTROPY, p, (IMAGES, KINDS), seeds=[0, 1], shared=f"{top}/**",
                      **options | {"metric": None})  # fmt: skip
    for i in range(2):
        begin = {k: v if k == top else jax.tree.map(lambda a, i=i: a[i], v) for k, v in stack.items()}
        alone = fit(CONV, begin, ENTROPY, p, (IMAGES, KINDS), seed=i, **options | {"metric": None})
        assert same(result.of(i), alone.params)


@pytest.mark.slow
def test_adapters_on_one_base():
    from tljax import peft
    from tljax.models import mlp
    from tljax.plans import adapters_only

    model = mlp((16,), num_classes=3)
    base = model.init(jax.random.key(0), X)
    where = "**/kernel"
    single = [peft.lora(base, where, key=jax.random.key(i), rank=2) for i in range(2)]
    wrapped, first = peft.attach(model, base, single[0])
    trees = [first, peft.attach(model, base, single[1])[1]]
    stack = {k: first[k] if k != "adapters" else jax.tree.map(lambda *a: jnp.stack(a), *(t[k] for t in trees))
             for k in first}  # fmt: skip
    result = fit_many(wrapped, stack, ENTROPY, adapters_only(), TRAIN, VALID, seeds=[0, 1],
                      shared=["backbone/**", "head/**"], **SHORT)  # fmt: skip
    for i, tree in enumerate(trees):
        alone = fit(wrapped, tree, ENTROPY, adapters_only(), TRAIN, VALID, seed=i, **SHORT)
        assert same(result.of(i), alone.params)
    assert nbytes({k: result.params[k] for k in ("backbone", "head")}) == nbytes(base)


def test_what_is_shared_must_be_frozen_and_exist():
    with pytest.raises(FitError, match=r"shared: 'backbone/b' is not frozen.*freeze it in the plan"):
        many(2, plan())
    with pytest.raises(FitError, match="'backbone/w' is not frozen"):
        many(2, plan(linear_probe(), unfreeze("backbone/w")))
    with pytest.raises(NoMatchError):
        many(2, shared="bone/**")
    with pytest.raises(FitError, match=r"found 'backbone/b' of the shape \(4,\).*shared='backbone/\*\*'"):
        many(2, shared=())
