import jax
import pytest

from tljax.checkpoints.errors import CheckpointError
from tljax.checkpoints.unwrap import descend, unwrap

MATRIX, SCALAR = jax.ShapeDtypeStruct((2, 2), "float32"), jax.ShapeDtypeStruct((), "int32")


def leaves(*names, separator="/"):
    """Leaves of these names; a "#" at the end marks a scalar, and is no part of the name."""
    return {tuple(name.rstrip("#").split(separator)): SCALAR if name.endswith("#") else MATRIX for name in names}


# file -> what the weights are called, what was taken off, what was left out
UNTOUCHED = [
    ["encoder/w", "head/w"],
    ["model/w", "head/w"],  # a module that happens to be called model
    ["params/w", "batch_stats/mean"],  # Flax variables: both are needed
    ["params/w", "model_state/batch_stats/mean"],
    ["source/w", "target/w"],
    ["target/w", "state/w"],
    ["model/w", "logit_scale#"],  # a learnt scalar is no bookkeeping
    ["teacher/w", "student/w"],
    ["w"],
    ["optimizer/w"],  # all there is
    ["opt"],
]


@pytest.mark.parametrize("names", UNTOUCHED, ids="+".join)
def test_what_might_be_weights_stays(names):
    found = unwrap(leaves(*names), "/")
    assert {"/".join(path) for path in found.paths} == {name.rstrip("#") for name in names}
    assert found.removed == ()
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("names", "weights", "removed", "left_out"),
    [
        (["params/a/w", "opt_state/0/mu/a/w", "step#"], ["a/w"], ["params"], ["opt_state", "step"]),
        (["params/params/w"], ["w"], ["params", "params"], []),
        (["state_dict/model/w", "epoch#"], ["w"], ["state_dict", "model"], ["epoch"]),
        (
            ["optimizer/target/params/w", "optimizer/state/step#", "optimizer/state/param_states/w"],
            ["w"],
            ["optimizer", "target", "params"],
            ["optimizer/state"],
        ),
        (["opt/target/w", "opt/state/param_states/w/mu", "step#"], ["w"], ["opt", "target"], ["step", "opt/state"]),
        (["target/w", "state/step#", "state/param_states/w/mu"], ["w"], ["target"], ["state"]),
        (["params/w", "batch_stats/mean", "opt_state/mu"], ["params/w", "batch_stats/mean"], [], ["opt_state"]),
        (
            ["model/w", "model_ema/w", "Optimizer/m", "lr_scheduler/x#"],
            ["w"],
            ["model"],
            ["model_ema", "Optimizer", "lr_scheduler"],
        ),
        (
            ["net/w", "best_acc#", "train_loss#", "global_step#", "rng"],
            ["w"],
            ["net"],
            ["best_acc", "train_loss", "global_step", "rng"],
        ),
        (["encoder/w", "decoder/w", "optim_state_dict/m"], ["encoder/w", "decoder/w"], [], ["optim_state_dict"]),
        (["params/w", "ema_params/w", "opt/m"], ["w"], ["params"], ["ema_params", "opt"]),
    ],
)
def test_wrappings(names, weights, removed, left_out):
    found = unwrap(leaves(*names), "/")
    assert {"/".join(path) for path in found.paths} == set(weights)
    assert list(found.removed) == removed
    assert set(found.left_out) == set(left_out)


def test_every_array_is_weights_or_told():
    names = ["model/w", "model/b", "optimizer/m/w", "optimizer/m/b", "optimizer/v/w", "step#"]
    found = unwrap(leaves(*names), "/")
    assert found.left_out == {"optimizer": "optimiser state (3 arrays)", "step": "bookkeeping (1 array)"}
    assert len(found.paths) == 2


@pytest.mark.parametrize(
    ("names", "weights", "removed"),
    [
        (["module.a.w", "module.b.w"], ["a.w", "b.w"], ["module."]),
        (["_orig_mod.module.w"], ["w"], ["_orig_mod.", "module."]),
        (["module.w", "head.w"], ["module.w", "head.w"], []),
        (["module."], ["module."], []),
        (["modules.w"], ["modules.w"], []),
    ],
)
def test_prefixes_of_torch_names(names, weights, removed):
    found = unwrap({(name,): MATRIX for name in names}, ".")
    assert [path for (path,) in found.paths] == weights
    assert list(found.removed) == removed


def test_flax_names_keep_their_prefix():
    assert unwrap({("module.w",): MATRIX}, "/").removed == ()


def test_the_root_is_what_one_says():
    file = leaves("model/w", "model_ema/w", "model_ema/inner/b")
    found = descend(file, "model_ema", "f")
    assert found.paths == {("w",): ("model_ema", "w"), ("inner", "b"): ("model_ema", "inner", "b")}
    assert found.left_out == {"model": "not under the root"}
    assert set(descend(file, "model_ema/inner", "f").paths) == {("b",)}
    assert set(descend(file, "", "f").paths) == set(file)
    with pytest.raises(
        CheckpointError, match="nothing stands under root='model_emo'; the nearest keys are 'model_ema'"
    ):
        descend(file, "model_emo", "f")
    with pytest.raises(CheckpointError, match="the file does not nest"):
        descend(leaves("w"), "model", "f")


def test_a_hundred_thousand_top_level_keys_are_quick():
    file = leaves(*(f"best{i}#" for i in range(100_000)), "model/w")
    assert set(unwrap(file, "/").paths) == {("w",)}
