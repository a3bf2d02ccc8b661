"""The options that say in which type a command trains, what it clips and how it saves memory."""

import json

import jax
import pytest

from tljax.checkpoints import load_weights
from tljax.cli import main
from tljax.recipes.adapting.settings import AdaptSettings
from tljax.recipes.finetune.settings import FinetuneSettings
from tljax.recipes.options import SettingsError
from tljax.recipes.settings import Settings


def test_they_become_keywords_of_fit_and_are_described_where_given():
    settings = FinetuneSettings(model="m", data="d", precision="bfloat16", remat="blocks", microbatch="auto")
    assert settings.of_fit(16) == {"precision": "bfloat16", "remat": "blocks", "accumulate": "auto"}
    assert AdaptSettings(microbatch="8").of_fit(32)["accumulate"] == 4
    assert Settings(precision="float16").described()["precision"] == "float16"
    assert not {"precision", "remat", "microbatch", "clip_norm"} & set(Settings().described())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"precision": "bf16"}, "option 'precision' is 'bf16'; it should be one of float32, bfloat16, float16"),
        ({"remat": "layers"}, "one of none, blocks, dots"),
        ({"microbatch": "5"}, "option 'microbatch' is '5'; it should be auto, or a divisor of the batch size, 32"),
        ({"microbatch": "few"}, "auto, or a divisor"),
        ({"clip_norm": 0.0}, "option 'clip_norm' is 0.0; it should be above 0"),
    ],
)
def test_what_is_no_choice_is_refused(option, said):
    with pytest.raises(SettingsError, match=said):
        Settings(**option)


@pytest.mark.slow
def test_a_transfer_in_half_precision_with_blocks_computed_again(tmp_path, capsys):
    words = "transfer --model mlp --method full --seeds 2 --labels-per-class 2 --shots 2 --steps 4 --pretrain-steps 4"
    more = ["--precision", "bfloat16", "--remat", "blocks", "--microbatch", "auto", "--learning-rates", "0.01"]
    assert main([*words.split(), *more, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    capsys.readouterr()
    described = json.loads((tmp_path / "run" / "pretrain" / "checkpoints" / "run.json").read_text())
    assert (described["precision"], described["remat"], described["accumulate"]) == ("bfloat16", "blocks", 1)


@pytest.mark.slow
def test_a_clipped_adaptation_differs_and_says_so(tmp_path, capsys):
    words = ["adapt", "--model", "mlp", "--method", "mcc", "--seeds", "1", "--steps", "4", "--quiet"]
    weights = {}
    for name, more in {"free": [], "clipped": ["--clip-norm", "0.01"]}.items():
        assert main([*words, *more, "--run-dir", str(tmp_path / name)]) == 0
        told = json.loads((tmp_path / name / "results.json").read_text())["protocol"]["optimizer"]
        assert told.endswith("gradients clipped to norm 0.01") == (name == "clipped")
        file = next((tmp_path / name / "methods" / "0-mcc").rglob("seed_0.safetensors"))
        weights[name] = load_weights(file)
    capsys.readouterr()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), weights["free"], weights["clipped"])
    assert not all(jax.tree.leaves(same))
