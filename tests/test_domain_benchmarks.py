"""The networks of the domain benchmarks beside torch's layers."""

import argparse
import importlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tljax as tl

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
B = 8


@pytest.fixture(scope="module")
def network():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("domain_network")
    sys.path.remove(str(FOLDER))


def digits(n=B):
    """Images with flat grounds, as digits have: there the four of a max-pool are equal."""
    x = np.random.default_rng(0).integers(0, 256, (n, 28, 28, 1))
    x[:, :, :9] = 0
    return x.astype(np.uint8), (np.arange(n) % 10).astype(np.int32)


def torch_network(torch, params, kind):
    """The same network in torch, with the same weights."""
    nn, b = torch.nn, jax.tree.map(np.array, params["backbone"])
    layers = [
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(),
    ]  # fmt: skip
    weights = [b["conv_0"]["kernel"].transpose(3, 2, 0, 1), b["conv_1"]["kernel"].transpose(3, 2, 0, 1)]
    weights.append(b["dense"]["kernel"].reshape(4, 4, 50, 500).transpose(3, 2, 0, 1).reshape(500, 800))
    biases = [b[name]["bias"] for name in ("conv_0", "conv_1", "dense")]
    width = 500
    if kind == "norm":
        layers += [nn.Linear(500, 256), nn.BatchNorm1d(256), nn.ReLU()]
        weights += [b["bottleneck"]["dense"]["kernel"].T, b["bottleneck"]["norm"]["scale"]]
        biases += [b["bottleneck"]["dense"]["bias"], b["bottleneck"]["norm"]["bias"]]
        width = 256
    net = nn.Sequential(*layers, nn.Linear(width, 10))
    weights.append(np.array(params["head"]["kernel"]).T)
    biases.append(np.array(params["head"]["bias"]))
    with torch.no_grad():
        for layer, weight, bias in zip([m for m in net if hasattr(m, "weight")], weights, biases, strict=True):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    return net


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_a_step_of_sgd_is_that_of_torch(network, kind):
    torch = pytest.importorskip("torch")
    model, (x, y) = network.network(kind, dropout=0.0), digits()  # torch would draw other numbers
    params = model.init(jax.random.key(0), x)
    net = torch_network(torch, params, kind).train()
    inputs = torch.tensor(x.transpose(0, 3, 1, 2)).float() / 255 * 2 - 1
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    losses = []
    for _ in range(2):
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(inputs), torch.tensor(y).long())
        loss.backward()
        losses.append(float(loss.detach()))
        sgd.step()
    rule = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1, momentum=0.9, nesterov=True))
    step = tl.make_step(model, tl.cross_entropy(), tl.plan().resolve(params), rule)
    batch = {"train": tl.Batch(jnp.asarray(x), jnp.asarray(y))}
    state, update = step.init(params, batch, seed=0), jax.jit(step.update)
    for expected in losses:
        state, metrics = update(state, batch)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
    after = jax.tree.map(np.asarray, tl.merge(state.trainable["model"], state.stats))
    theirs = torch_network(torch, after, kind)
    for name, ours in theirs.named_parameters():
        found = dict(net.named_parameters())[name].detach()
        np.testing.assert_allclose(ours.detach(), found, rtol=2e-3, atol=2e-5, err_msg=name)


def layers_of(network):
    """Each layer on its map `[B, H, W, C]`, to the pooled map `[B, h, w, D]`."""

    def first(x, kernel, bias):
        out = network.first_maps(x, kernel, bias).reshape(6, 6, len(x), 2, 2, -1)
        return out.transpose(2, 0, 3, 1, 4, 5).reshape(len(x), 12, 12, -1)

    def second(x, kernel, bias):
        maps = x.reshape(len(x), 6, 2, 6, 2, -1).transpose(1, 3, 0, 2, 4, 5).reshape(36, len(x), -1)
        return network.second_maps(maps, kernel, bias).reshape(4, 4, len(x), -1).transpose(2, 0, 1, 3)

    return {"first": (first, (3, 28, 28, 1)), "second": (second, (3, 12, 12, 2))}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["first", "second"])
def test_matrix_products_are_a_convolution_and_a_max_pool(network, which):
    layer, shape = layers_of(network)[which]
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (5, 5, shape[-1], 4))
    bias = jnp.arange(4.0)

    def plain(x, kernel, bias):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        size = (1, 2, 2, 1)
        return jax.lax.reduce_window(y + bias[None, None, None], -jnp.inf, jax.lax.max, size, size, "VALID")

    ours, back = jax.vjp(layer, x, kernel, bias)
    expected, their_back = jax.vjp(plain, x, kernel, bias)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    cotangent = jax.random.normal(keys[2], ours.shape)
    for a, b in zip(back(cotangent), their_back(cotangent)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_networks_begin_as_torch_layers_do_and_have_their_widths(network):
    x = digits()[0]
    for kind, width in {"plain": 500, "dropout": 256, "norm+dropout": 256, "afn": 1000}.items():
        model = network.network(kind)
        params = jax.eval_shape(model.init, jax.random.key(0), x)
        assert jax.eval_shape(model.apply, params, x).features.shape == (B, width)
    params = network.network("plain").init(jax.random.key(0), x)
    kernel = np.abs(np.asarray(params["backbone"]["conv_1"]["kernel"]))
    assert 0.99 / np.sqrt(500) < kernel.max() <= 1 / np.sqrt(500)
    assert tl.tree.count(params) == 20 * 26 + 50 * 501 + 500 * 801 + 10 * 501


@pytest.fixture(scope="module")
def bench(network):
    pytest.importorskip("PIL")
    return importlib.import_module("domain_digits")


def cell(*rows):
    names = ("step", "oracle_accuracy", "im", "snd", "source_accuracy")
    return {"evaluations": [dict(zip(names, row)) for row in rows]}


def test_columns_choose_by_their_own_number_and_never_the_start(bench):
    run = cell((0, 0.9, 9, 9, 9), (10, 0.5, 2, 1, 0.8), (20, 0.8, 2, 3, 0.7), (30, 0.6, 1, 2, 0.9))
    found = {column: bench.chosen(run, column) for column in bench.CHOOSERS}
    assert found == {"last": 0.6, "im": 0.5, "snd": 0.8, "source": 0.6, "best on test": 0.8}


def test_the_table_says_what_is_missing(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "CELLS", tmp_path)
    for seed, accuracy in ((0, 0.9), (1, 0.92)):
        file = bench.file_of("mnist-usps", 40, "dann", seed)
        file.write_text(json.dumps(cell((20, accuracy, 1, 1, 1)) | {"method": "dann", "seed": seed}))
    asked = ("mnist-usps", 40, ["dann", "mcc"], [0, 1, 2])
    text = bench.table(bench.kept(*asked), *asked)
    assert "(published: 50000)" in text
    assert "91.0 ± 12.7" in text  # t = 12.706 of one degree of freedom, s = sqrt(2)
    assert "not run (method seed): dann 2, mcc 0, mcc 1, mcc 2" in text
    bench.file_of("mnist-usps", 40, "mcc", 1).write_text("{")
    with pytest.raises(SystemExit, match=r"40_mcc_1\.json is damaged .*; delete it"):
        bench.kept(*asked)


def test_a_trial_does_not_take_the_place_of_published_numbers(bench, tmp_path, monkeypatch, capsys):
    facts = importlib.import_module("facts")
    parser, usual = argparse.ArgumentParser(), facts.ROOT / "benchmarks" / "results" / "x.json"
    parser.add_argument("--seeds", type=int, default=5)
    facts.add_output(parser, usual)

    def place(*given):
        return facts.output_of(parser, parser.parse_args(given), usual, "seeds")

    assert place() == usual
    assert place("--seeds", "1", "--output", "y.json") == pathlib.Path("y.json")
    with pytest.raises(SystemExit):
        place("--seeds", "1")
    assert "with another --seeds say where the JSON goes: --output FILE" in capsys.readouterr().err
    monkeypatch.delenv("TLJAX_DATA_DIR", raising=False)
    with pytest.raises(SystemExit, match=r"set TLJAX_DATA_DIR .* in which there are digits/usps\.npz"):
        facts.data_folder("digits", "usps.npz")
    monkeypatch.setenv("TLJAX_DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match=r"in which there are no digits/usps\.npz"):
        facts.data_folder("digits", "usps.npz")


@pytest.mark.slow
def test_seeds_in_one_program_give_the_cells_that_each_gives_alone(bench, monkeypatch):
    x, y = digits()
    source, target, held = (x, y), (255 - x, None), {"source": (x[:8], y[:8]), "target": (255 - x[:8], None)}
    data = bench.Data(source, target, held | {"test": (255 - x[:12], y[:12])})
    monkeypatch.setattr(bench, "domains", lambda direction: data)
    monkeypatch.setattr(bench, "BATCH", 8)
    method = bench.METHODS["erm"]._replace(before=10)
    together = bench.train(method, "mnist-usps", 40, [3, 5])
    (alone,) = bench.train(method, "mnist-usps", 40, [5])
    assert [cell["seeds in one program"] for cell in together] == [[3, 5]] * 2
    assert [row["step"] for row in alone["evaluations"]] == list(range(0, 41, 2))
    for mine, theirs, other in zip(together[1]["evaluations"], alone["evaluations"], together[0]["evaluations"]):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-3)
        assert abs(other["source_likelihood"] - theirs["source_likelihood"]) > 1e-3


def test_optimisers_leave_out_momentum_where_the_authors_do(bench):
    tree = {"model": {"backbone": {"dense": jnp.ones(1), "bottleneck": jnp.ones(1)}, "head": jnp.ones(1)}, "terms": ()}
    zeros = jax.tree.map(jnp.zeros_like, tree)
    rule = bench.optimizer(bench.METHODS["afn"], "mnist-usps")
    _, state = rule.update(tree, rule.init(zeros), zeros)
    after, _ = rule.update(zeros, state, zeros)
    moved = {name: bool(leaf[0]) for name, leaf in tl.tree.named_leaves(after).items()}
    assert moved == {"model/backbone/bottleneck": True, "model/backbone/dense": False, "model/head": True}


def test_the_backbone_of_mdd_learns_at_a_tenth_of_the_rate(bench):
    """As in TLlib's script of MDD, which alone gives the scratch network the rates of fine-tuning."""
    backbone = {"dense": jnp.ones(1), "bottleneck": jnp.ones(1)}
    tree = {"model": {"backbone": backbone, "head": jnp.ones(1)}, "terms": jnp.ones(1)}
    rule = bench.optimizer(bench.METHODS["mdd"], "mnist-usps")
    with jax.numpy_dtype_promotion("standard"):
        moved, _ = rule.update(tree, rule.init(tree), tree)
    found = {name: float(leaf[0]) for name, leaf in tl.tree.named_leaves(moved).items()}
    step = found.pop("model/backbone/dense")
    assert list(found.values()) == pytest.approx([10 * step] * 3)
