"""`tljax transfer` as a whole, small."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tljax.checkpoints.run import RunError
from tljax.cli import main
from tljax.data import DataError
from tljax.recipes import Settings, SettingsError, run_transfer
from tljax.recipes.evaluated import run_evaluate
from tljax.recipes.folder import claim_folder
from tljax.recipes.reported import run_report
from tljax.recipes.tasks import load_tasks

SMALL = {"model": "mlp", "labels_per_class": 3, "shots": (1,), "seeds": 2, "steps": 12, "pretrain_steps": 30}
REPEATS = 2


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("transfer") / "run"
    return run_transfer(settings(folder), show=False)


def settings(folder: pathlib.Path, **options) -> Settings:
    return Settings(**SMALL | {"repeats": REPEATS} | options, run_dir=str(folder))


def test_every_cell_is_there(outcome) -> None:
    results = outcome.results
    assert results["methods"] == ["full", "scratch", "linear-probe", "knn"]
    cells = [(c["method"], c["shots"], c["seed"], c["repeat"]) for c in results["cells"]]
    trained = [m for m in results["methods"] if m != "knn"]
    wanted = {(m, k, s, r) for m in trained for k in (1, 3) for s in (0, 1) for r in range(REPEATS)}
    assert set(cells) == wanted | {("knn", k, s, 0) for k in (1, 3) for s in (0, 1)}  # k-NN has no training seed
    assert len(cells) == len(set(cells))
    for cell in results["cells"]:
        confusion = np.array(cell["confusion"])
        assert confusion.sum() == results["target"]["test"]
        assert cell["test"]["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum(), abs=1e-6)


def test_the_splits_are_disjoint_parts_of_the_digits(outcome) -> None:
    source, target = outcome.results["source"], outcome.results["target"]
    total = source["train"] + source["valid"] + source["test"] + target["pool"] + target["valid"] + target["test"]
    assert total == 1797
    assert (source["classes"], target["classes"]) == (list("01234"), list("56789"))


def test_means_and_gains_follow_from_the_cells(outcome) -> None:
    results = outcome.results

    def values(method: str, shots: int) -> list[float]:
        """One value a draw of labels: the mean over its training seeds."""
        found = [c for c in results["cells"] if (c["method"], c["shots"]) == (method, shots)]
        return [float(np.mean([c["test"]["accuracy"] for c in found if c["seed"] == s])) for s in (0, 1)]

    for row in results["summary"]:
        found = values(row["method"], row["shots"])
        assert row["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(found))
        assert sorted(row["gains"]) == sorted({"scratch", "linear-probe", "knn"} - {row["method"]})
        for other, gain in row["gains"].items():
            difference = np.array(found) - values(other, row["shots"])
            assert gain["values"] == pytest.approx(difference.tolist())
            below = "strong" if gain["high"] < 0 else "weak" if gain["mean"] < 0 else ""
            assert gain["negative"] == below
        assert row["gain"] == row["gains"].get("scratch")
    judged = results["verdict"]
    assert (judged["method"], judged["shots"]) == ("full", 3)
    assert judged["outcome"] in ("helped", "hurt", "undecided")


def test_the_spread_is_told_apart_by_draw_and_by_training(outcome) -> None:
    results = outcome.results
    for row in results["summary"]:
        found = [c for c in results["cells"] if (c["method"], c["shots"]) == (row["method"], row["shots"])]
        table = [[c["test"]["accuracy"] for c in found if c["seed"] == s] for s in (0, 1)]
        spread, whole = row["spread"], np.std([np.mean(runs) for runs in table], ddof=1)
        assert spread["whole"] == pytest.approx(whole)
        if row["method"] == "knn":
            assert spread["labels"] is spread["training"] is None
            continue
        within = np.mean(np.var(table, axis=1, ddof=1))
        assert spread["training"] == pytest.approx(within**0.5)
        assert spread["labels"] == pytest.approx(max(0.0, whole**2 - within / REPEATS) ** 0.5)
        assert spread["test"][0] < row["metrics"]["accuracy"]["mean"] < spread["test"][1]


def test_draws_of_labels_are_told_apart_and_shared_by_methods(outcome) -> None:
    labels = {}
    for cell in outcome.results["cells"]:
        labels.setdefault((cell["shots"], cell["seed"]), set()).add(cell["labels"])
    assert all(len(found) == 1 for found in labels.values())
    assert len({next(iter(found)) for found in labels.values()}) == len(labels) == 4


def test_labels_are_told_what_they_are_worth(outcome) -> None:
    results = outcome.results
    means = {(r["method"], r["shots"]): r["metrics"]["accuracy"]["mean"] for r in results["summary"]}
    for method, factors in results["labels"]["factors"].items():
        first, last = factors["method"]
        assert (first["shots"], last["shots"]) == (1, 3)
        above = means[method, 3] > max(means["scratch", 1], means["scratch", 3])
        assert (last["relation"] == ">=") == above
        area = (means[method, 1] + means[method, 3]) / 2
        assert results["labels"]["areas"][method]["mean"] == pytest.approx(area)


def test_compute_is_counted(outcome) -> None:
    found = outcome.results["compute"]
    assert list(found) == ["full", "scratch", "linear-probe"]
    assert found["full"] == found["full"] | {"steps": 12, "examples": 12 * 32, "runs": 2 * 2 * 2 * REPEATS}
    assert found["full"]["flops"] == found["scratch"]["flops"] == 12 * found["full"]["step_flops"]
    assert found["linear-probe"]["flops"] < found["full"]["flops"]
    near = found["full"]["to"]
    assert 0 <= near["90"]["steps"] <= near["95"]["steps"] <= near["99"]["steps"] <= 12
    assert near["95"]["examples"] == near["95"]["steps"] * 32


def test_seconds_stand_beside_the_results(outcome) -> None:
    timing = json.loads((outcome.folder / "timing.json").read_text())
    assert list(timing["methods"]) == ["pretrain", "full", "scratch", "linear-probe", "knn"]
    assert all(found["run_seconds"] > 0 and found["compile_seconds"] >= 0 for found in timing["methods"].values())
    assert timing["methods"]["full"]["peak_bytes"] > 0
    assert "seconds" not in (outcome.folder / "results.json").read_text()
    assert "ms/step" in (outcome.folder / "report.html").read_text()


def test_what_the_source_lost(outcome) -> None:
    found, source = outcome.results["retention"], outcome.results["source"]
    assert found["before"] == pytest.approx(source["test_metrics"]["accuracy"], abs=1e-6)
    assert found["forgotten"]["values"] == pytest.approx(
        [found["before"] - after for after in found["after"]["values"]]
    )
    curve = found["tradeoff"]
    assert [line[0] for line in curve["source"]] == pytest.approx([found["before"]] * 2)
    assert [line[-1] for line in curve["source"]] == pytest.approx(found["after"]["values"])
    for end, method in ((0, "linear-probe"), (-1, "full")):
        cells = [c for c in outcome.results["cells"] if (c["method"], c["shots"], c["repeat"]) == (method, 3, 0)]
        ends = [line[end] for line in curve["target"]]
        assert ends == pytest.approx([c["test"]["accuracy"] for c in cells], abs=1e-6)
    assert set(found["distance"]) == {"backbone/block_00/**", "head/**"}
    assert found["cka_layers"]["backbone/block_00/**"]["mean"] == pytest.approx(found["cka"]["mean"], abs=1e-6)


def test_finished_runs_are_evaluated_as_recorded_and_anew(outcome, tmp_path: pathlib.Path) -> None:
    recorded = run_evaluate([outcome.folder])
    mean = {r["method"]: r["metrics"]["accuracy"]["mean"] for r in outcome.results["summary"] if r["shots"] == 3}
    assert {r["method"]: r["metrics"]["accuracy"]["mean"] for r in recorded.rows} == mean
    _, target = load_tasks(settings(outcome.folder))
    raw = target.test.x * target.statistics.std + target.statistics.mean
    np.savez(tmp_path / "new.npz", x=raw, y=np.array(target.test.classes)[target.test.y])
    again = run_evaluate([outcome.folder], data=str(tmp_path / "new.npz"))
    assert [row["method"] for row in again.rows] == ["full", "scratch", "linear-probe"]
    for row in again.rows:
        assert row["examples"] == outcome.results["target"]["test"]
        assert row["metrics"]["accuracy"]["mean"] == pytest.approx(mean[row["method"]], abs=1e-6)
    assert max(map(len, str(again).splitlines())) <= 100
    with pytest.raises(DataError, match="classes that"):
        run_evaluate([outcome.folder], data="digits")
    one = np.flatnonzero(target.test.y == target.test.y[0])[:2]
    np.savez(tmp_path / "one.npz", x=raw[one], y=np.array(target.test.classes)[target.test.y[one]])
    few = run_evaluate([outcome.folder], data=str(tmp_path / "one.npz"))  # of one class, and fewer than parts
    assert [row["examples"] for row in few.rows] == [2, 2, 2]


def test_new_data_may_be_a_part_of_the_classes_and_of_other_images(outcome, tmp_path: pathlib.Path) -> None:
    _, target = load_tasks(settings(outcome.folder))
    raw = target.test.x * target.statistics.std + target.statistics.mean
    names = np.array(target.test.classes)[target.test.y]
    np.savez(tmp_path / "grey.npz", x=raw, y=names)
    np.savez(tmp_path / "colour.npz", x=np.repeat(raw, 3, axis=3), y=names)
    some = target.test.classes[:2]
    rows = [
        run_evaluate([outcome.folder], data=str(tmp_path / f"{name}.npz"), classes=",".join(some)).rows
        for name in ("grey", "colour")
    ]
    for grey, colour in zip(*rows, strict=True):
        assert grey["examples"] == np.isin(names, some).sum()
        assert colour["metrics"]["nll"]["values"] == pytest.approx(grey["metrics"]["nll"]["values"], rel=1e-4)
    np.savez(tmp_path / "rows.npz", x=raw.reshape(len(raw), -1), y=names)
    with pytest.raises(DataError, match="holds no images"):
        run_evaluate([outcome.folder], data=str(tmp_path / "rows.npz"))


def test_the_command_evaluates_and_writes_json(outcome, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(outcome.folder)
    assert main(["evaluate", folder, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(run_evaluate([outcome.folder]).json)
    assert main(["evaluate", folder, folder, "--json", str(tmp_path / "a" / "b.json")]) == 0
    assert "scratch" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "a" / "b.json").read_text())["rows"]) == 2 * len(found["rows"])
    assert main(["evaluate", folder, "--classes", "1"]) == 2
    assert "name them with --data" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_beside_itself_does_not_differ(outcome, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(outcome.folder, copy)
    found = run_report(outcome.folder, copy, output=tmp_path / "pair.html")
    assert "on average the same" in " ".join(found.text.split())
    page = (tmp_path / "pair.html").read_text()
    assert page.count("What the source lost") == 2
    (copy / "results.json").unlink()
    with pytest.raises(RunError, match="not complete"):
        run_report(outcome.folder, copy)
    shutil.rmtree(copy / "chosen")
    shutil.copy(outcome.folder / "results.json", copy)
    with pytest.raises(RunError, match="no chosen models"):
        run_evaluate([copy], data="digits")


def test_the_rate_is_the_one_validation_likes(outcome) -> None:
    results = outcome.results
    assert {c["rate"] for c in results["cells"] if c["method"] == "full"} <= set(results["protocol"]["rates"])
    assert all(c["valid"] is not None for c in results["cells"])


def test_the_backbone_was_grafted(outcome) -> None:
    assert outcome.results["graft"]["counts"]["loaded"] == 2
    assert "backbone/**" in outcome.results["graft"]["text"]


def test_the_folder_holds_everything(outcome) -> None:
    folder = outcome.folder
    for name in ("config.json", "results.json", "report.md", "report.html", "pretrain/metrics.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    assert json.loads((folder / "results.json").read_text()) == outcome.results
    assert list((folder / "pictures").iterdir())
    assert "://" not in (folder / "report.html").read_text().replace("http://www.w3.org", "")
    assert str(outcome.folder / "report.html") in str(outcome)


def test_a_finished_run_is_told_again_without_computing(outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tljax.recipes.transfer._compute", lambda *_: pytest.fail("computed again"))
    again = run_transfer(settings(outcome.folder), show=False)
    assert again.results == outcome.results


@pytest.mark.slow
def test_what_one_process_began_another_continues(outcome, tmp_path: pathlib.Path) -> None:
    """The later phases start from a restored source model then, and still recognise their checkpoints."""
    folder = tmp_path / "again"
    shutil.copytree(outcome.folder, folder)
    (folder / "results.json").unlink()
    assert run_transfer(settings(folder), show=False).results == outcome.results
    assert (folder / "results.json").read_bytes() == (outcome.folder / "results.json").read_bytes()


def test_another_configuration_is_refused_and_nothing_lost(outcome) -> None:
    before = (outcome.folder / "results.json").read_bytes()
    with pytest.raises(RunError, match="steps: was 12, now 13"):
        run_transfer(settings(outcome.folder, steps=13), show=False)
    with pytest.raises(RunError, match="holds a run already"):
        run_transfer(settings(outcome.folder, resume=False), show=False)
    assert (outcome.folder / "results.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"title": "half"}'])
def test_damaged_results_are_worked_out_again(damage: str, tmp_path: pathlib.Path, monkeypatch) -> None:
    settings = Settings(**SMALL, run_dir=str(tmp_path))
    claim_folder(tmp_path, settings.described(), resume=True)
    (tmp_path / "results.json").write_text(damage)
    monkeypatch.setattr("tljax.recipes.transfer._compute", lambda *_: {"summary": []})
    monkeypatch.setattr("tljax.recipes.transfer.write_report", lambda *_: None)
    assert run_transfer(settings, show=False).results == {"summary": []}
    assert json.loads((tmp_path / "results.json").read_text()) == {"summary": []}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lp-ft", "linear-probe"])
def test_other_methods(method: str, tmp_path: pathlib.Path) -> None:
    results = run_transfer(Settings(**SMALL, method=method, run_dir=str(tmp_path)), show=False).results
    assert results["methods"][:2] == [method, "scratch"]
    assert results["verdict"]["method"] == method


@pytest.mark.slow
def test_a_table_with_numbers_to_predict(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    np.savez(tmp_path / "source.npz", x=x, y=(x[:, 0] + x[:, 1] > 0).astype(np.int32))
    np.savez(tmp_path / "target.npz", x=x, y=x[:, 0] + x[:, 1])
    settings = Settings(
        source=str(tmp_path / "source.npz"), target=str(tmp_path / "target.npz"), **SMALL, run_dir=str(tmp_path / "run")
    )
    results = run_transfer(settings, show=False).results
    assert results["verdict"]["metric"] == "rmse"
    assert results["methods"] == ["full", "scratch", "linear-probe"]
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_bad_data_is_one_clear_error_before_any_training(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        run_transfer(Settings(source="nowhere.npz", run_dir=str(tmp_path / "a")), show=False)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "flat.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 2)
    with pytest.raises(SettingsError, match="only images can be brought to one shape"):
        run_transfer(Settings(target=str(tmp_path / "flat.npz"), run_dir=str(tmp_path / "b")), show=False)
    with pytest.raises(DataError, match="labels per class"):
        run_transfer(Settings(**SMALL | {"labels_per_class": 5000}, run_dir=str(tmp_path / "c")), show=False)
    with pytest.raises(SettingsError, match="single class"):
        run_transfer(Settings(**SMALL, target_classes="3", run_dir=str(tmp_path / "d")), show=False)


@pytest.mark.slow
@pytest.mark.real_data
def test_mnist_to_usps_helps(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = Settings(
        source=str(data_dir / "digits" / "mnist_train.npz"),
        target=str(data_dir / "digits" / "usps.npz"),
        model="lenet",
        shots=(10,),
        seeds=3,
        steps=60,
        pretrain_steps=300,
        run_dir=str(tmp_path),
    )
    results = run_transfer(settings, show=False).results
    assert results["target"]["test"] == 2007
    assert results["verdict"]["outcome"] == "helped"
    accuracy = {row["method"]: row["metrics"]["accuracy"]["mean"] for row in results["summary"]}
    assert accuracy["full"] > 0.85
