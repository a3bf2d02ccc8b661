"""One folder, one configuration."""

import json
import pathlib
from types import SimpleNamespace

import pytest

from tljax.checkpoints.run import RunError
from tljax.recipes import contents
from tljax.recipes.folder import claim_folder, read_results, results_of

NOW, OTHER = {"source": "digits"}, {"source": "digtis"}


@pytest.fixture
def begun(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder in which something has been trained."""
    claim_folder(tmp_path, NOW, resume=True)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "metrics.jsonl").write_text("")
    return tmp_path


def test_settings_may_change_until_something_is_computed(tmp_path: pathlib.Path) -> None:
    claim_folder(tmp_path, OTHER, resume=True)
    claim_folder(tmp_path, NOW, resume=False)
    assert json.loads((tmp_path / "config.json").read_text()) == NOW


def test_afterwards_they_may_not(begun: pathlib.Path) -> None:
    claim_folder(begun, NOW, resume=True)
    with pytest.raises(RunError, match='source: was "digits", now "digtis"'):
        claim_folder(begun, OTHER, resume=True)
    with pytest.raises(RunError, match="holds a run already"):
        claim_folder(begun, NOW, resume=False)
    assert json.loads((begun / "config.json").read_text()) == NOW


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"source": "dig', b"\xff\xfe"])
def test_damaged_settings_are_told_with_what_to_do(damage: bytes, begun: pathlib.Path) -> None:
    (begun / "config.json").write_bytes(damage)
    with pytest.raises(RunError, match="missing or damaged; choose another --run-dir, or delete it"):
        claim_folder(begun, NOW, resume=True)
    assert (begun / "config.json").read_bytes() == damage
    (begun / "config.json").unlink()
    claim_folder(begun, NOW, resume=True)


def test_results_whose_settings_are_unknown_are_not_taken_for_ours(begun: pathlib.Path) -> None:
    (begun / "results.json").write_text('{"summary": []}')
    (begun / "config.json").unlink()
    with pytest.raises(RunError, match="missing or damaged"):
        claim_folder(begun, OTHER, resume=True)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"summary": [', b"\xff\xfe"])
def test_only_whole_results_are_read(damage: bytes, tmp_path: pathlib.Path) -> None:
    assert read_results(tmp_path) is None
    (tmp_path / "results.json").write_bytes(damage)
    assert read_results(tmp_path) is None
    (tmp_path / "results.json").write_text('{"summary": []}')
    assert read_results(tmp_path) == {"summary": []}


def test_a_run_of_files_that_have_changed_is_not_taken_for_this_one(tmp_path):
    data, images, code = tmp_path / "data.npz", tmp_path / "images", tmp_path / "net.py"
    (images / "cat").mkdir(parents=True)
    config = {"source": f"{data}#train", "target": str(images), "model": f"{code}:Net(width=3)", "methods": ["dann"]}
    for file in (data, code, images / "cat" / "1.png"):
        file.write_bytes(b"one")
    folder = images / "runs"  # in the data, of which it is no part
    claim_folder(folder, config, resume=True)
    (folder / "results.json").write_text("{}")
    claim_folder(folder, config, resume=True)
    for file, named in ((data, "data.npz#train"), (code, "net.py:Net"), (images / "cat" / "2.png", "images")):
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(b"two")
        with pytest.raises(RunError, match=f"a run from before '.*{named}.*' changed; choose another --run-dir"):
            claim_folder(folder, config, resume=True)
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        claim_folder(folder, config, resume=True)


def test_of_large_files_size_and_ends_count(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "WHOLE", 1 << 20)
    file = tmp_path / "weights"
    digests = set()
    for start, end, size in ((b"a", b"z", 4), (b"b", b"z", 4), (b"a", b"y", 4), (b"a", b"z", 5)):
        file.write_bytes(start + bytes(size << 20) + end)
        digests.add(contents.contents({"weights": str(file)})[str(file)])
    assert len(digests) == 4


def test_more_seeds_go_on_in_the_same_folder(tmp_path):
    def claim(**config):
        return claim_folder(tmp_path, config, resume=True, grows=("seeds",))

    assert claim(steps=5, seeds=2) is False
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RunError, match="steps"):
        claim(steps=6, seeds=3)
    with pytest.raises(RunError, match="seeds"):
        claim(steps=5, seeds=1)
    assert claim(steps=5, seeds=3) is True
    assert claim(steps=5, seeds=2) is False


def test_the_results_of_fewer_seeds_stay_until_those_of_more_are_there(tmp_path):
    def results(seeds, compute):
        config = {"steps": 5, "seeds": seeds}
        settings = SimpleNamespace(folder=tmp_path, described=lambda: config, resume=True, GROWS=("seeds",))
        return results_of(settings, compute, say=lambda text: None)

    def killed():
        raise KeyboardInterrupt

    two, three = {"summary": [2]}, {"summary": [3]}
    assert results(2, lambda: two) == two
    with pytest.raises(KeyboardInterrupt):
        results(3, killed)
    assert results(2, killed) == two
    assert results(3, lambda: three) == three == results(3, killed)
    with pytest.raises(RunError, match="seeds: was 3, now 2"):
        results(2, killed)
