"""A run on a mesh is the run on one device, and its program sends what the layout makes it send, and nothing else."""

import functools
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_dispatch import CONV
from test_dispatch import start as conv_start
from training_cases import HITS, TANH, examples, normed, same

import tljax as tl
from tljax import peft
from tljax.objectives import stateless
from tljax.training.options import options_from
from tljax.training.prepare import prepare
from tljax.training.traffic import collectives
from tljax.tree import named_leaves, nbytes
from tljax.types import Model, Output

DEVICES = jax.devices()[:8]
X, Y = examples(80, features=16)
TRAIN, VALID = (X[:48], Y[:48]), (X[48:], Y[48:])
ENTROPY, ADAM, SGD = tl.cross_entropy(), optax.adam(0.01), optax.sgd(0.1)
SHORT = {"optimizer": ADAM, "steps": 8, "batch_size": 16, "eval_every": 4, "progress": False, "metric": HITS}
ONE, FOUR = tl.mesh(1, devices=DEVICES), tl.mesh(fsdp=4, devices=DEVICES[:4])
DATA, BOTH = tl.mesh(devices=DEVICES), tl.mesh(fsdp=2, devices=DEVICES)
SPLIT = tl.layout(above=0)
"""Every array that divides is divided."""
NORMED = normed()
START = NORMED.init(jax.random.key(0), X)


def run(mesh=None, layout=None, plan=tl.plan(), model=NORMED, params=START, **options):  # noqa: B008
    options = SHORT | {"optimizer": SGD} | options
    return tl.fit(model, params, ENTROPY, plan, TRAIN, VALID, mesh=mesh, layout=layout, seed=1, **options)


def nearly(found, wanted, tolerance=1e-6):
    """Every leaf within `tolerance` of the largest number in it: a sum in another order cannot do better.

    Or of 1, for a bias before BatchNorm is nothing but the rounding of sums of such numbers.
    """
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for name, leaf in named_leaves(wanted).items():
        host, other = np.asarray(leaf, np.float64), np.asarray(named_leaves(found)[name], np.float64)
        np.testing.assert_allclose(other, host, rtol=0, atol=tolerance * max(np.abs(host).max(), 1.0), err_msg=name)


def rows_nearly(found, wanted):
    for row, other in zip(found.history, wanted.history, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert value == (value if isinstance(value, str) else pytest.approx(other[name], rel=4e-6, abs=4e-7)), row


@pytest.fixture(scope="module")
def alone():
    return run()


@pytest.mark.parametrize("mesh", [FOUR, DATA, BOTH], ids=["4 fsdp", "8 data", "4 data, 2 fsdp"])
def test_losses_parameters_statistics_and_metrics_are_those_of_one_device(alone, mesh):
    found = run(mesh, SPLIT)
    rows_nearly(found, alone)
    nearly(found.last, alone.last)
    assert any("batch_stats" in name for name in named_leaves(found.last))
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(found.last)} == {mesh.size}


@pytest.mark.slow
def test_one_device_of_a_mesh_gives_the_same_bits(alone):
    found = run(ONE)
    assert same((found.last, found.params), (alone.last, alone.params))
    assert found.history == alone.history


@pytest.mark.slow
def test_gradients_are_those_of_one_device():
    options = {"model": WIDE, "params": WIDE.init(None, X), "optimizer": optax.sgd(1.0), "steps": 1, "eval_every": 1}
    options["params"] = jax.tree.map(lambda leaf: leaf / 1024, options["params"])  # so that steps are not rounded off

    def gradient(**where):
        return jax.tree.map(lambda new, old: np.asarray(new) - old, run(**options, **where).last, options["params"])

    nearly(gradient(mesh=BOTH, layout=SPLIT), gradient())


@pytest.mark.slow
def test_every_option_works_on_a_mesh():
    def noisy(key, batch):
        return batch._replace(x=batch.x + 0.1 * jax.random.normal(key, batch.x.shape))

    options = {
        "accumulate": 2,
        "ema": 0.9,
        "clip_norm": 0.5,
        "augment": noisy,
        "optimizer": optax.sgd(0.1, momentum=0.9),
    }
    options |= {
        "model": normed(dropout=0.3),
        "plan": tl.plan(tl.rate("head/**", 2.0), tl.freeze("backbone/dense_0/**")),
    }
    wanted, found = run(**options), run(BOTH, SPLIT, **options)
    rows_nearly(found, wanted)
    nearly(found.params, wanted.params)


@pytest.mark.slow
def test_parameters_stay_usable():
    params = TANH.init(jax.random.key(0), X)
    for _ in range(2):  # the second time they lie where the run wants them
        before = jax.tree.map(np.array, params)
        result = run(BOTH, SPLIT, model=TANH, params=params)
        assert same(jax.tree.map(np.array, params), before)
        params = result.last


def _init(key, x):
    rng, widths = np.random.default_rng(0), [x.shape[1], 64, 128, 8]
    shapes = dict(zip(("backbone/a", "backbone/b", "head"), itertools.pairwise(widths)))
    return tl.tree.from_named(
        {f"{name}/kernel": (rng.normal(size=(n, m)) / np.sqrt(n)).astype("float32") for name, (n, m) in shapes.items()}
        | {f"{name}/bias": np.zeros(m, np.float32) for name, (n, m) in shapes.items()}
    )


def _apply(params, x, **_):
    dense = lambda p, x: x @ p["kernel"] + p["bias"][None]  # noqa: E731
    features = jnp.tanh(dense(params["backbone"]["b"], jnp.tanh(dense(params["backbone"]["a"], x))))
    return Output(dense(params["head"], features), features)


WIDE = Model(_init, _apply, name="wide net")


def prepared(mesh, layout=None, plan=tl.plan(), model=WIDE, params=None, objective=ENTROPY, train=TRAIN, **options):  # noqa: B008
    params = model.init(None, X) if params is None else params
    chosen = options_from({"steps": 5, "batch_size": 16, "metric": HITS, "mesh": mesh, "layout": layout} | options)
    ready = prepare(model, params, objective, plan, train, VALID, ADAM, chosen)
    start = (ready.placement.put(params), jnp.uint32(0), jnp.float32(1), ready.streams)
    return ready, ready.program.start(*start)


def own_bytes(tree):
    """What the first device holds of arrays that are not single numbers."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree) if leaf.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 8])
def test_bytes_of_parameters_and_optimiser_fall_as_one_over_n(n):
    ready, now = prepared(tl.mesh(1, fsdp=n, devices=DEVICES), SPLIT)
    for _ in range(2):
        for tree in (now.state.trainable, now.state.opt, now.best.model):
            assert own_bytes(tree) == sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if leaf.ndim) / n
        now = ready.program.advance.begin(now, ready.streams)(now, ready.streams, 2)  # and so it stays


def test_by_default_large_arrays_are_divided_and_small_ones_are_not():
    model = prepared(BOTH)[1].state.trainable["model"]
    found = {name: tuple(leaf.sharding.spec) for name, leaf in named_leaves(model).items() if any(leaf.sharding.spec)}
    assert found == {"backbone/b/kernel": (None, "fsdp")}


def sent(program):
    """Bytes by kind of collective and number of devices; of single numbers, such as the loss, none."""
    found = {}
    for each in collectives(program.compile()):
        found.setdefault((each.kind, each.devices), []).append(each.bytes)
    return {key: sum(sizes) // 64 * 64 for key, sizes in found.items() if sum(sizes) >= 64}


def of_step(ready, now):
    return sent(ready.program.advance.lower(now, ready.streams, jnp.int32(1)))


def rounded(tree):
    return nbytes(tree) // 64 * 64


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_data_parallel_steps_sum_gradients_and_nothing_else(accumulate):
    ready, now = prepared(DATA, accumulate=accumulate)
    assert of_step(ready, now) == {("all-reduce", 8): rounded(now.state.params)}
    assert sent(ready.program.validate.lower(now, ready.valid)) == {}


@pytest.mark.slow
def test_divided_parameters_are_gathered_and_their_gradients_summed():
    ready, now = prepared(BOTH, SPLIT)
    kernels = nbytes([leaf for name, leaf in named_leaves(now.state.params).items() if name.endswith("kernel")])
    assert of_step(ready, now) == {
        ("all-gather", 2): rounded(now.state.params),
        # Gradients over fsdp, which other compilers make a reduce-scatter; then over data what each device keeps.
        ("all-reduce", 2): kernels,
        ("all-reduce", 4): kernels // 2,
        ("all-reduce", 8): (64 + 128) * 4,  # those of the biases, at once
    }


FROZEN = {"whole": tl.layout(tl.shard("backbone/**", ()), above=5000), "divided": tl.layout(above=5000)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("way", ["head", "lora"])
def test_a_frozen_backbone_sends_no_gradient(kind, way):
    model, params, plan = WIDE, WIDE.init(None, X), tl.linear_probe()
    if way == "lora":
        adapters = peft.lora(params, "backbone/**/kernel", key=jax.random.key(1), rank=2)
        (model, params), plan = peft.attach(model, params, adapters), tl.adapters_only()
    ready, now = prepared(BOTH, FROZEN[kind], plan, model, params)
    wanted = {("all-reduce", 8): rounded(now.state.trainable)}
    if kind == "divided":
        wanted["all-gather", 2] = nbytes(params["backbone"]["b"]["kernel"])
    assert of_step(ready, now) == wanted
    assert own_bytes(now.state.frozen["backbone"]["b"]) == (64 * 128 // (1 + (kind == "divided")) + 128) * 4


@pytest.mark.slow
def test_a_run_of_adapters_is_that_of_one_device():
    params = WIDE.init(None, X)
    adapters = peft.lora(params, "backbone/**/kernel", key=jax.random.key(1), rank=2)
    model, params = peft.attach(WIDE, params, adapters)
    found, alone = (run(mesh, model=model, params=params, plan=tl.adapters_only()) for mesh in (BOTH, None))
    nearly(found.last, alone.last)
    rows_nearly(found, alone)


@pytest.mark.slow
def test_tensor_parallel_layers_keep_their_parts():
    layout = tl.layout(
        tl.shard("backbone/a/kernel", (None, "tensor")), tl.shard("backbone/a/bias", ("tensor",)),
        tl.shard("backbone/b/kernel", ("tensor",)),
    )  # fmt: skip
    ready, now = prepared(tl.mesh(tensor=2, devices=DEVICES), layout)
    found = of_step(ready, now)
    assert {kind for kind, _ in found} == {"all-reduce"}
    kept = nbytes(now.state.params) - (16 * 64 + 64 + 64 * 128) * 4 / 2
    assert found.pop(("all-reduce", 4)) == pytest.approx(kept, abs=128)  # gradients
    assert found == {("all-reduce", 2): 16 // 4 * 128 * 4}  # activations of a device's examples, in the second layer


@pytest.mark.slow
def test_streams_that_go_through_the_model_together_stay_where_they_are():
    def apart(scene):
        return jnp.mean(scene.outputs["a"].logits ** 2) + jnp.mean(scene.outputs["b"].logits), {}

    term = stateless(apart, "apart", "a", "b", joint=("a", "b"))
    train = {"a": (X[:48], None), "b": (X[20:], None)}
    ready, now = prepared(DATA, objective=term, train=train, batch_size={"a": 16, "b": 8})
    assert of_step(ready, now) == {("all-reduce", 8): rounded(now.state.params)}


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(tmp_path):
    def end(row):
        if row["step"] >= 4:
            raise Stop

    where = {"model": TANH, "params": TANH.init(jax.random.key(0), X), "save_every": 2}
    whole = run(BOTH, SPLIT, **where)
    with pytest.raises(Stop):
        run(BOTH, SPLIT, run_dir=tmp_path / "first", on_log=[end], **where)
    for i, (mesh, layout) in enumerate([(FOUR, SPLIT), (None, None), (BOTH, SPLIT)]):
        shutil.copytree(tmp_path / "first", tmp_path / str(i))
        again = run(mesh, layout, run_dir=tmp_path / str(i), **where)
        assert len(again.history) == len(whole.history)
        rows_nearly(again, whole)
        nearly(again.last, whole.last)
    assert same(again.last, whole.last)  # on the same mesh bit for bit


class Pairs:
    def __len__(self):
        return 48

    def __getitem__(self, i):
        return X[i], Y[i]


@pytest.mark.slow
def test_streamed_data_are_divided_as_they_come():
    def streamed(mesh, valid):
        train = tl.data.stream(Pairs())
        return tl.fit(TANH, params, ENTROPY, train=train, valid=valid, mesh=mesh, seed=1, **SHORT)

    params = TANH.init(jax.random.key(0), X)
    wanted = run(DATA, model=TANH, params=params, optimizer=ADAM)
    found = streamed(DATA, VALID)
    assert same(found.last, wanted.last)
    assert found.history == wanted.history
    rows_nearly(streamed(DATA, tl.data.stream(Pairs())), streamed(None, tl.data.stream(Pairs())))


@pytest.mark.slow
def test_validators_choose_on_a_mesh():
    def chosen(**options):
        valid = {"source": VALID, "target": (X[50:], None)}
        options = SHORT | {"metric": tl.validator("im")} | options
        return tl.fit(TANH, TANH.init(jax.random.key(0), X), ENTROPY, train=TRAIN, valid=valid, **options)

    found, alone = chosen(mesh=BOTH, layout=SPLIT), chosen()
    rows_nearly(found, alone)
    assert found.best_step == alone.best_step


@pytest.mark.slow
def test_convolutions_step_by_step():
    x, y = examples(40, features=36)
    x = x.reshape(40, 6, 6, 1)
    options = SHORT | {"steps": 3, "eval_every": 3, "batch_size": 8, "optimizer": SGD}
    found, alone = (tl.fit(CONV, conv_start(), ENTROPY, train=(x, y), valid=(x, y), mesh=mesh, **options)
                    for mesh in (DATA, None))  # fmt: skip
    rows_nearly(found, alone)


@pytest.mark.slow
def test_a_configuration_is_compiled_once():
    first, second = prepared(BOTH, SPLIT)[0], prepared(tl.mesh(fsdp=2, devices=DEVICES), tl.layout(above=0))[0]
    assert first.program is second.program
    assert first.program is not prepared(BOTH)[0].program
    assert run(BOTH, SPLIT).step_cost().flops > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 12}, r"'train' is divided into 8 parts on the mesh data=4, fsdp=2, tensor=1, so it must be a "
                             "multiple of 8; found 12"),
        ({"accumulate": 4}, "cut into accumulate=4 microbatches, is divided into 8 parts .* multiple of 32; found 16"),
        ({"mesh": None, "layout": SPLIT}, r"give it too, as mesh=tl.mesh\(fsdp=2\)"),
        ({"layout": "fsdp"}, "layout is what tl.layout gives; found 'fsdp'"),
        ({"mesh": 8}, "the mesh should be one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(options, message):
    with pytest.raises(tl.TljaxError, match=message):
        run(**{"mesh": BOTH} | options)


@pytest.mark.slow
def test_on_a_mesh_the_runs_of_a_stack_are_made_in_turn():
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), TANH.init(jax.random.key(0), X))
    stack = tl.fit_many(TANH, starts, ENTROPY, train=TRAIN, seeds=[0, 1], **SHORT)
    turns = tl.fit_many(TANH, starts, ENTROPY, train=TRAIN, seeds=[0, 1], mesh=DATA, **SHORT)
    assert [(row["step"], row["run"]) for row in turns.history] == [(row["step"], row["run"]) for row in stack.history]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), turns.params, stack.params)


@pytest.mark.slow
def test_runs_in_turn_are_compiled_together_with_others(monkeypatch):
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), TANH.init(jax.random.key(0), X))
    subsets = [np.arange(16), np.arange(20)]
    of = functools.partial(tl.fit_many, TANH, starts, train=TRAIN, seeds=[0, 1], subsets=subsets, mesh=DATA, **SHORT)
    runs = [
        functools.partial(of, objective=objective) for objective in (ENTROPY, tl.cross_entropy(label_smoothing=0.3))
    ]
    assert tl.compile_all(runs) > 0
    compiled, compile_ = [], jax.stages.Lowered.compile

    def noted(lowered, *arguments):
        compiled.append(lowered)
        return compile_(lowered, *arguments)

    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    assert [len(run().history) for run in runs] == [len(tl.fit_many(*runs[0].args, **runs[0].keywords).history)] * 2
    assert compiled == []


@pytest.mark.slow
@pytest.mark.parametrize("term", [tl.dann, tl.mdd, lambda: tl.mcd(head=tl.objectives.DeepHead(3))])
def test_what_a_term_owns_is_divided_too(term):
    """Networks of the usual size, of which large arrays are divided and small ones not."""
    given = {"objective": ENTROPY + term(), "train": {"source": TRAIN, "target": (X[:48] + 1, None)}, "progress": False}
    wanted, found = (
        tl.fit(TANH, TANH.init(jax.random.key(0), X), optimizer=SGD, steps=4, batch_size=16, mesh=mesh, **given)
        for mesh in (None, tl.mesh(fsdp=2, devices=DEVICES[:2]))
    )
    nearly(found.last, wanted.last, tolerance=1e-4)  # of |p - q| the slope jumps
    rows = [result.history[-1] for result in (found, wanted)]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
