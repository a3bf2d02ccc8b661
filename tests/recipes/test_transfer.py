"""`tljax transfer` as a whole, small."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tljax.checkpoints.run import RunError
from tljax.data import DataError
from tljax.recipes import Settings, SettingsError, run_transfer
from tljax.recipes.folder import claim_folder

SMALL = {"model": "mlp", "labels_per_class": 3, "shots": (1,), "seeds": 2, "steps": 12, "pretrain_steps": 30}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("transfer") / "run"
    return run_transfer(Settings(**SMALL, run_dir=str(folder)), show=False)


def test_every_cell_is_there(outcome) -> None:
    results = outcome.results
    assert results["methods"] == ["full", "scratch", "linear-probe", "knn"]
    cells = {(c["method"], c["shots"], c["seed"]) for c in results["cells"]}
    assert cells == {(m, k, s) for m in results["methods"] for k in (1, 3) for s in (0, 1)}
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
        return [c["test"]["accuracy"] for c in results["cells"] if (c["method"], c["shots"]) == (method, shots)]

    for row in results["summary"]:
        found = values(row["method"], row["shots"])
        assert row["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(found))
        if row["method"] != "scratch":
            gain = np.array(found) - values("scratch", row["shots"])
            assert row["gain"]["values"] == pytest.approx(gain.tolist())
    judged = results["verdict"]
    assert (judged["method"], judged["shots"]) == ("full", 3)
    assert judged["outcome"] in ("helped", "hurt", "undecided")


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
    again = run_transfer(Settings(**SMALL, run_dir=str(outcome.folder)), show=False)
    assert again.results == outcome.results


def test_what_one_process_began_another_continues(outcome, tmp_path: pathlib.Path) -> None:
    """The later phases start from a restored source model then, and still recognise their checkpoints."""
    folder = tmp_path / "again"
    shutil.copytree(outcome.folder, folder)
    (folder / "results.json").unlink()
    assert run_transfer(Settings(**SMALL, run_dir=str(folder)), show=False).results == outcome.results
    assert (folder / "results.json").read_bytes() == (outcome.folder / "results.json").read_bytes()


def test_another_configuration_is_refused_and_nothing_lost(outcome) -> None:
    before = (outcome.folder / "results.json").read_bytes()
    with pytest.raises(RunError, match="steps: was 12, now 13"):
        run_transfer(Settings(**SMALL | {"steps": 13}, run_dir=str(outcome.folder)), show=False)
    with pytest.raises(RunError, match="holds a run already"):
        run_transfer(Settings(**SMALL, run_dir=str(outcome.folder), resume=False), show=False)
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
        pretrain_steps=600,
        run_dir=str(tmp_path),
    )
    results = run_transfer(settings, show=False).results
    assert results["target"]["test"] == 2007
    assert results["verdict"]["outcome"] == "helped"
    accuracy = {row["method"]: row["metrics"]["accuracy"]["mean"] for row in results["summary"]}
    assert accuracy["full"] > 0.85
