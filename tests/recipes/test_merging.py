"""`tljax merge` and `tljax adapters`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.checkpoints import load_weights, save_weights
from tljax.cli import main
from tljax.models import export, load_pretrained, vit
from tljax.peft import PeftError, dora, full, join, load_adapters, lora, merge, save_adapters
from tljax.recipes.merging import combine_adapters
from tljax.tree import map_named, named_leaves


def written(folder: pathlib.Path, name: str, seed: int) -> tuple[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    leaves = {
        "conv.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "bn.running_var": rng.uniform(1, 2, 4).astype(np.float32),
        "bn.num_batches_tracked": np.int64(seed),
        "half.weight": rng.normal(size=4).astype(np.float16),
    }
    save_weights(leaves, folder / f"{name}.safetensors", separator=".")
    return str(folder / f"{name}.safetensors"), leaves


@pytest.fixture
def files(tmp_path: pathlib.Path):
    found = [written(tmp_path, name, seed) for seed, name in enumerate("abc")]
    return [file for file, _ in found], [leaves for _, leaves in found], tmp_path


def merged(out: pathlib.Path) -> dict[str, np.ndarray]:
    return {name.replace("/", "."): leaf for name, leaf in named_leaves(load_weights(out)).items()}


def test_uniform_averages_names_and_dtypes_kept(files, capsys: pytest.CaptureFixture) -> None:
    paths, leaves, folder = files
    out = folder / "out.safetensors"
    assert main(["merge", *paths, "--out", str(out)]) == 0
    found = merged(out)
    assert {n: x.dtype for n, x in found.items()} == {n: np.asarray(x).dtype for n, x in leaves[0].items()}
    for name in ("conv.weight", "bn.running_var"):
        np.testing.assert_allclose(found[name], np.mean([x[name] for x in leaves], 0), rtol=1e-6)
    assert found["bn.num_batches_tracked"] == 0
    text = capsys.readouterr().out
    assert "1 running statistics averaged" in text
    assert "1 leaves as they were" in text
    assert main(["merge", *paths, "--out", str(out)]) == 2
    assert "exists; give --force" in capsys.readouterr().err


def test_methods_that_read_a_base_and_leaves_that_are_kept(files) -> None:
    (base, *tuned), (a, b, c), folder = files
    out = folder / "out.npz"
    for method, options in {
        "task": ["--scale", "0.5"],
        "ties": ["--density", "1"],
        "dare": ["--rate", "0"],
        "stock": [],
    }.items():
        command = ["merge", *tuned, "--base", base, "--method", method, *options, "--out", str(out), "--force"]
        assert main([*command, "--keep", "half/**"]) == 0
        found = merged(out)
        np.testing.assert_array_equal(found["half.weight"], a["half.weight"])
        np.testing.assert_allclose(found["bn.running_var"], (b["bn.running_var"] + c["bn.running_var"]) / 2, rtol=1e-6)
        if method == "task":
            expected = a["conv.weight"] + 0.5 * (b["conv.weight"] + c["conv.weight"] - 2 * a["conv.weight"])
            np.testing.assert_allclose(found["conv.weight"], expected, rtol=1e-5)
        if method == "dare":
            np.testing.assert_allclose(found["conv.weight"], (b["conv.weight"] + c["conv.weight"]) / 2, rtol=1e-5)


def test_double_precision_is_merged_in_double(tmp_path: pathlib.Path) -> None:
    for i in range(2):
        save_weights({"w": np.array([1 / 3 + i])}, tmp_path / f"{i}.npz")
    assert main(["merge", str(tmp_path / "0.npz"), str(tmp_path / "1.npz"), "--method", "wise", "--alpha", "0.25",
                 "--out", str(tmp_path / "out.npz")]) == 0  # fmt: skip
    found = load_weights(tmp_path / "out.npz")["w"]
    assert found.dtype == np.float64
    assert found[0] == pytest.approx(1 / 3 + 0.25, abs=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "tees"], "did you mean ties"),
        (["--method", "ties"], "give them with --base"),
        (["--base", "a.npz"], "reads no base"),
        (["--method", "wise"], "found 3 files"),
        (["--weights", "1,2"], "2 weights for 3 files"),
    ],
)
def test_options_that_do_not_go_together(files, options, message, capsys: pytest.CaptureFixture) -> None:
    assert main(["merge", *files[0], "--out", str(files[2] / "out.npz"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory):
    """A tiny ViT of transformers, and folders with a LoRA, an rsLoRA with a head, and a DoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    model = vit("ti", num_classes=3, patch=4, width=12, depth=1, heads=2)
    params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    export(model, params, folder / "base", convention="transformers")
    base = load_pretrained(folder / "base")
    where = "**/{query,value}/kernel"

    def noisy(adapters):
        return map_named(
            lambda n, x: x if "scale" in n else x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), adapters
        )

    sets = {
        "one": noisy(lora(base.params, where, key=jax.random.key(1), rank=2)),
        "two": noisy(
            join(lora(base.params, where, key=jax.random.key(2), rank=3, rslora=True), full(base.params, "head/**"))
        ),
        "dora": noisy(dora(base.params, where, key=jax.random.key(3), rank=2)),
    }
    for name, adapters in sets.items():
        save_adapters(adapters, folder / name, base.model, base.params)
    return folder, base, sets


def test_combine_writes_the_weighted_sum(adapted, tmp_path: pathlib.Path) -> None:
    folder, base, sets = adapted
    models = [named_leaves(merge(base.params, sets[name])) for name in ("one", "two")]
    for method in ("cat", "svd"):
        command = ["adapters", "combine", str(folder / "one"), str(folder / "two"), "--base", str(folder / "base")]
        rank = ["--rank", "5"] if method == "svd" else []
        assert main([*command, "--weights", "0.7,0.5", "--method", method, *rank, "--out", str(tmp_path / method)]) == 0
        found = load_adapters(tmp_path / method, base.model, base.params).adapters
        for name, leaf in named_leaves(merge(base.params, found)).items():
            start = named_leaves(base.params)[name]
            expected = start + 0.7 * (models[0][name] - start) + 0.5 * (models[1][name] - start)
            np.testing.assert_allclose(leaf, expected, atol=2e-5)


def test_combine_by_signs_and_by_chance(adapted, tmp_path: pathlib.Path) -> None:
    folder, base, sets = adapted
    start = named_leaves(base.params)
    changes = [
        {name: leaf - start[name] for name, leaf in named_leaves(merge(base.params, sets[name_of])).items()}
        for name_of in ("one", "two")
    ]
    command = ["adapters", "combine", str(folder / "one"), str(folder / "two"), "--base", str(folder / "base")]
    for method, options in (("ties", ["--density", "1"]), ("dare", ["--rate", "0"])):
        out = tmp_path / method
        assert main([*command, "--method", method, *options, "--rank", "12", "--out", str(out)]) == 0
        found = load_adapters(out, base.model, base.params).adapters
        for name, leaf in named_leaves(merge(base.params, found)).items():
            if not name.endswith(("query/kernel", "value/kernel")):
                continue
            one, two = (np.asarray(change[name]) for change in changes)
            agree = np.where(one * two > 0, (one + two) / 2, np.where(np.abs(one) > np.abs(two), one, two))
            expected = one + two if method == "dare" else agree
            np.testing.assert_allclose(leaf, start[name] + expected, atol=5e-5, err_msg=f"{method} {name}")
    with pytest.raises(PeftError, match="--method tees; expected one of cat, svd, ties, dare"):
        combine_adapters([str(folder / "one")], str(tmp_path / "c"), base=str(folder / "base"), method="tees")


def test_list_export_and_what_cannot_be_combined(
    adapted, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    folder, base, sets = adapted
    assert main(["adapters", "list", str(folder / "dora"), "--base", str(folder / "base")]) == 0
    assert "dora" in capsys.readouterr().out
    assert (
        main(["adapters", "export", str(folder / "dora"), "--base", str(folder / "base"), "--out", str(tmp_path / "m")])
        == 0
    )
    found, expected = load_pretrained(tmp_path / "m").params, merge(base.params, sets["dora"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    capsys.readouterr()
    assert (
        main(
            ["adapters", "combine", str(folder / "dora"), "--base", str(folder / "base"), "--out", str(tmp_path / "c")]
        )
        == 2
    )
    assert "would drop the magnitudes" in capsys.readouterr().err


def test_a_full_folder_is_kept_and_the_option_named(tmp_path: pathlib.Path, capsys) -> None:
    (tmp_path / "mine").write_text("here")
    for action in (["combine", "a", "b"], ["export", "a"]):
        assert main(["adapters", *action, "--base", "nowhere", "--out", str(tmp_path)]) == 2
        assert "not empty; give --force" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "here"
