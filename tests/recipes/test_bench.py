"""`tljax bench` on small models: what it counts and writes, sweeps, and the command."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_cases import measured, settings, small_ceilings

from tljax.cli import main
from tljax.models import export
from tljax.models.catalog import CATALOG
from tljax.recipes.bench import bench_settings, run, run_bench
from tljax.recipes.bench.case import GENTLE, Case, open_case
from tljax.recipes.bench.error import BenchError
from tljax.recipes.bench.workload import load_workload

__all__ = ["small_ceilings"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, small_ceilings):
    """Three methods of one model, and a model that does not exist."""
    folder = tmp_path_factory.mktemp("sweep")
    methods = ["full", "head-only", "linear-probe"]
    return measured(folder, model=["mlp(hidden=(40,))", "mpl"], method=methods, batch=[16], trace=str(folder / "trace"))


@pytest.fixture(scope="module")
def case():
    found = open_case(settings(model=["mlp(hidden=(40,))"], batch=[16]).configurations[0], settings(model=["mlp"]))
    for _ in range(2):
        found.timed.turn()
    return found


def test_every_configuration_has_a_row_and_failures_their_reason(sweep):
    text, found = sweep
    methods = ["full", "head-only", "linear-probe"]
    names = [(row["configuration"]["model"], row["configuration"]["method"]) for row in found["rows"]]
    assert names == list(itertools.product(["mlp(hidden=(40,))", "mpl"], methods))
    failed = [row.get("failed", "")[:35] for row in found["rows"]]
    assert failed == ["", "", "", *["no model is called 'mpl'; the neares"[:35]] * 3]
    assert "mpl full 16 float32: no model is called 'mpl'" in text
    assert "mlp(hidden=(40,)) linear-probe 16 float32" in text


def test_everything_is_told_of_a_configuration(sweep):
    _, found = sweep
    matmul, copy = found["ceilings"]["matmul"]["float32"], found["ceilings"]["copy"]
    for row in found["rows"][:3]:
        step = row["step_seconds"]
        assert step["least"] <= step["q1"] <= step["median"] <= step["q3"] <= step["most"]
        assert len(row["repeats"]) == step["repeats"] == 5
        assert step["median"] == pytest.approx(np.median(row["repeats"]))
        assert row["examples_per_second"] == pytest.approx(16 / step["median"])
        assert row["flops_per_second"] == pytest.approx(row["flops_per_step"] / step["median"])
        assert row["of_matmul_ceiling"] == pytest.approx(row["flops_per_second"] / matmul["rate"]["median"])
        assert row["of_copy_ceiling"] == pytest.approx(row["bytes_per_second"] / copy["rate"]["median"])
        assert row["memory"]["source"] == "xla"
        assert row["memory"]["peak_bytes"] == row["memory"]["xla_bytes"] > 0
        assert 0 < row["compile_seconds"] < row["first_step_seconds"]
        assert 0 < row["host_share"] < 1
        assert row["steps_per_repeat"] >= 1
        assert row["checked"]["leaves_moved"] == 1
        assert not row["from_cache"]
        assert row["steps_skipped"] == 0
    assert len(matmul["repeats"]) == len(copy["repeats"]) == 5  # in the same rounds
    assert sorted(matmul["tried"]) == ["128", "64"]


def test_the_file_says_what_made_it(sweep):
    _, found = sweep
    assert found["machine"]["platform"] == "cpu"
    assert {"jax", "jaxlib", "tljax"} <= set(found["versions"])
    assert "xla_backend_optimization_level" in found["flags"]["XLA_FLAGS"]
    assert {"date", "command", "load", "start", "settings"} <= set(found)


def test_frozen_backbones_cost_less_and_cached_features_least(sweep):
    full, head, cached = (row["flops_per_step"] for row in sweep[1]["rows"][:3])
    forward = 2 * 16 * (12 * 40 + 40 * 10) + 2 * 16 * 40 * 10
    assert forward < head < full
    assert 2 * 2 * 16 * 40 * 10 < cached < head


def test_a_trace_is_written_for_each_configuration(sweep):
    traces = [row["trace"] for row in sweep[1]["rows"][:3]]
    assert len(set(traces)) == 3
    assert all(list(pathlib.Path(folder).rglob("*.xplane.pb")) for folder in traces)


def test_the_operations_of_a_step_are_those_of_its_products(case):
    """Two dense layers, B = 16, 12 -> 40 -> 10: forward, and gradients of both kernels and of the hidden layer."""
    products = 2 * 16 * (2 * 12 * 40 + 3 * 40 * 10)
    cost = case.cost()
    parameters = 12 * 40 + 40 + 40 * 10 + 10
    assert products < cost.flops < products + 20 * parameters + 30 * 16 * (40 + 10)
    assert cost.bytes_accessed > 4 * 7 * parameters  # AdamW reads parameter, gradient and moments, and writes three
    assert cost.peak_bytes > 4 * 3 * parameters
    assert case.uncounted() == []


@pytest.mark.slow
def test_the_steps_are_those_of_fit(case):
    """The loss of the steps that were timed is that of training on the same data."""
    import optax

    from tljax.training import fit

    work = load_workload(case.configuration, seed=0)
    assert isinstance(work.optimizer, optax.GradientTransformation)
    gentle = optax.chain(work.optimizer, optax.scale(GENTLE))
    result = fit(
        work.model, work.params, work.objective, work.plan, work.train, optimizer=gentle, batch_size=16,
        steps=5, log_every=5, progress=False,
    )  # fmt: skip
    again = open_case(case.configuration, settings(model=["mlp"], steps=2))  # one step, and two turns of two
    assert int(again.run.state.step) == 5
    for mine, theirs in zip(jax.tree.leaves(again.run.state.params), jax.tree.leaves(result.last), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "examples"), [("dann", 8), ("fixmatch", 12), ("dann+fixmatch", 16)])
def test_methods_of_adaptation_read_several_streams(method, examples):
    found = open_case(settings(model=["mlp"], method=[method], batch=[4]).configurations[0], settings(model=["mlp"]))
    for _ in range(3):
        found.timed.turn()
    assert found.examples == examples
    assert found.check() > 0.5


def test_views_of_a_stream_are_drawn_apart():
    """Were they the same, a compiler could take one pass for both."""
    work = load_workload(settings(model=["mlp"], method=["fixmatch"], batch=[4]).configurations[0], seed=0)
    target = work.train["target"][0]
    assert set(target) == {"weak", "strong"}
    assert float(jnp.abs(target["weak"] - target["strong"]).min()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("lenet", {"method": ["full"]}),
        ("bert-tiny", {"method": ["lora"], "seq_len": 6}),
    ],
)
def test_models_that_read_images_and_sentences(tmp_path, model, more):
    _, found = measured(tmp_path, model=[model], batch=[2], features=None, **more)
    assert found["rows"][0]["flops_per_second"] > 0


@pytest.mark.slow
def test_pretrained_weights_are_benchmarked_by_their_folder(tmp_path):
    model = CATALOG["resnet8"].constructor(3, width=4)
    params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    export(model, params, tmp_path / "net.safetensors", format="safetensors")
    spec = str(tmp_path / "net.safetensors")
    configuration = settings(model=[spec], batch=[4], features=None, image_size=8).configurations[0]
    work = load_workload(configuration, seed=0)
    assert work.params["head"]["kernel"].shape[-1] == 10
    name = "stem" if "stem" in params["backbone"] else next(iter(params["backbone"]))
    jax.tree.map(np.testing.assert_array_equal, work.params["backbone"][name], params["backbone"][name])


# Sweeps.


@pytest.mark.slow
def test_what_is_crowded_out_takes_turns_on_the_device(tmp_path, monkeypatch):
    """The second configuration fits only once the first has left the device."""
    opened, held = open_case, []

    def one_at_a_time(configuration, *more):
        if any(case.parked is None for case in held):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        held.append(opened(configuration, *more))
        return held[-1]

    monkeypatch.setattr(run, "open_case", one_at_a_time)
    _, found = measured(tmp_path, model=["mlp"], batch=[4, 8, 16])
    assert [row["step_seconds"]["repeats"] for row in found["rows"]] == [5, 5, 5]
    assert all(case.parked is not None for case in held)


@pytest.mark.slow
def test_a_failure_while_timing_becomes_a_row(tmp_path, monkeypatch):
    look, seen = Case.look, []

    def fails_later(self):
        seen.append(self)
        if self.configuration.batch == 4 and len(self.losses) == 3:
            raise RuntimeError("INTERNAL: the device is gone")
        look(self)

    monkeypatch.setattr(Case, "look", fails_later)
    _, found = measured(tmp_path, model=["mlp"], batch=[4, 8], steps=3)
    assert found["rows"][0]["failed"] == "RuntimeError: INTERNAL: the device is gone"
    assert found["rows"][1]["step_seconds"]["repeats"] == 5


def test_sweep_takes_several_where_nothing_is_said():
    whole = bench_settings({"model": ["mlp", "lenet"], "sweep": True}).configurations
    assert len(whole) == 2 * 4 * 2 * 2
    assert len(bench_settings({"model": ["mlp"], "sweep": True, "batch": [4], "method": ["full"]}).configurations) == 2


@pytest.mark.slow
def test_a_step_over_a_mesh_counts_all_devices(tmp_path):
    _, one = measured(tmp_path, model=["mlp(hidden=(40,))"], batch=[16])
    _, four = measured(tmp_path, model=["mlp(hidden=(40,))"], batch=[16, 6], mesh="data=2,fsdp=2")
    row, other = one["rows"][0], four["rows"][0]
    assert other["flops_per_step"] == pytest.approx(row["flops_per_step"], rel=0.1)
    assert other["bytes_per_step"] > row["bytes_per_step"]
    assert other["configuration"]["mesh"] == "data=2,fsdp=2"
    assert four["ceilings"]["matmul"]["float32"]["devices"] == four["ceilings"]["copy"]["devices"] == 4
    assert "divide" in four["rows"][1]["failed"]
    with pytest.raises(BenchError, match="64"):
        run_bench(settings(model=["mlp"], mesh="data=64"), show=False)


@pytest.mark.slow
def test_each_dtype_has_a_ceiling_of_its_own(tmp_path):
    _, found = measured(tmp_path, model=["mlp"], dtype=["bfloat16", "float16"], batch=[8])
    assert sorted(found["ceilings"]["matmul"]) == ["bfloat16", "float16"]
    for row in found["rows"]:
        ceiling = found["ceilings"]["matmul"][row["configuration"]["dtype"]]
        assert ceiling["dtype"] == row["configuration"]["dtype"]
        assert row["of_matmul_ceiling"] == pytest.approx(row["flops_per_second"] / ceiling["rate"]["median"])


# The command.


def bench(*arguments):
    return main(["bench", "--quiet", "--repeats", "5", "--seconds", "0.01", *arguments])


@pytest.mark.slow
def test_the_command_prints_and_writes(tmp_path, capsys):
    file = tmp_path / "a.json"
    assert bench("--model", "mlp(hidden=(8, 8))", "--features", "12", "--batch", "4", "--json", str(file)) == 0
    text = capsys.readouterr().out
    assert "mlp(hidden=(8, 8)) full 4 float32" in text
    assert "ceiling: " in text
    assert bench_compare(file, file) == 0
    assert "1.000" in capsys.readouterr().out


def bench_compare(*files):
    return main(["bench", "--compare", *map(str, files)])


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "vit-s61"],
        ["--model", "mlp", "--repeats", "2"],
        ["--model", "mlp", "--method", "lorra"],
        ["--model", "mlp", "--json", "/nowhere/at/all.json"],
        ["--model", "nowhere/weights"],
        ["--compare", "nowhere.json", "nothing.json"],
        ["--compare", __file__, __file__],
        [],
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, capsys):
    assert main(["bench", "--quiet", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tljax: error: ")
    assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_first_step_is_counted_from_the_beginning_of_the_process(tmp_path):
    code = (
        "import sys, time; time.sleep(2); from tljax.recipes.bench import run; from tljax.recipes.bench.ceiling import "
        "Sizes; run.usual_sizes = lambda: Sizes((64,), 2**20); from tljax.cli import main; sys.exit(main())"
    )
    file = tmp_path / "a.json"
    arguments = ["bench", "--model", "mlp", "--repeats", "5", "--seconds", "0.01", "--json", str(file)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=os.environ, capture_output=True)
    found = json.loads(file.read_text())
    assert found["start"]["since"] == "the process"
    assert 2 < found["start"]["seconds"] < found["rows"][0]["first_step_seconds"]
