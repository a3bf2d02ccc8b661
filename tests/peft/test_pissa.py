"""PiSSA and OLoRA after saving and loading: the start is kept, so that nothing has to be decomposed again."""

import jax
import numpy as np
import pytest

from tljax import peft
from tljax.tree import named_leaves

BASE = np.random.default_rng(0).normal(size=(24, 20)).astype(np.float32)


@pytest.mark.parametrize("method", [peft.pissa, peft.olora])
def test_loaded_leaves_give_the_same_function(method, tmp_path):
    params = {"w": BASE}
    start = method(params, "w", rank=4)
    trained = {"w": jax.tree.map(lambda x: x, start["w"])}
    moved = np.asarray(start["w"].a) + np.float32(0.1)
    trained["w"] = type(start["w"])(moved, start["w"].b, start["w"].constants, start["w"].layout)
    np.savez(tmp_path / "leaves.npz", **named_leaves(trained))
    loaded = np.load(tmp_path / "leaves.npz")
    names = list(named_leaves(start))
    treedef = jax.tree.structure(start)
    again = jax.tree.unflatten(treedef, [loaded[name] for name in names])
    np.testing.assert_array_equal(peft.merge(params, again)["w"], peft.merge(params, trained)["w"])


def test_the_randomised_start_of_peft_is_lost_on_loading(tmp_path):
    """The defect that keeping the start avoids: `pissa_niter_k` draws another residual when it is loaded."""
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("peft")

    def net():
        one = torch.nn.Sequential(torch.nn.Linear(24, 20))
        with torch.no_grad():
            one[0].weight.copy_(torch.from_numpy(BASE.T))
            one[0].bias.zero_()
        return one

    torch.manual_seed(0)
    config = hf.LoraConfig(r=4, target_modules=["0"], init_lora_weights="pissa_niter_4")
    model, x = hf.get_peft_model(net(), config), torch.ones(3, 24)
    before = model(x)
    model.save_pretrained(tmp_path)
    after = hf.PeftModel.from_pretrained(net(), tmp_path)(x)
    assert (before - after).abs().max() > 1e-3
