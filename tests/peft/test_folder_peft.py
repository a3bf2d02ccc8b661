"""Folders against peft itself: ours load there without a warning, theirs here, and both compute the same."""

import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import peft_cases
import pytest

from tljax.peft import dora, full, ia3, join, load_adapters, lora, merge, olora, pissa, save_adapters, vera
from tljax.tree import map_named

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
cases = peft_cases.cases
KEY = jax.random.key(0)


@contextlib.contextmanager
def no_warnings():
    """peft must not warn; what transformers has to say of itself is another matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def stirred(adapters):
    """The adapters as if trained: every array that learns is moved."""
    rng = np.random.default_rng(0)

    def moved(name, leaf):
        if "constants" in name.split("/"):
            return leaf
        size = 0.3 / max(1, leaf[..., 0].size) ** 0.5 if name.endswith("/a") else 0.3
        return leaf + jnp.asarray(rng.normal(0, size, np.shape(leaf)), jnp.result_type(leaf))

    return map_named(moved, adapters)


def theirs(name, folder, merged):
    """What peft makes of the folder, on the base called `name`."""
    with no_warnings():
        model = peft.PeftModel.from_pretrained(cases.base_model(name), folder).eval()
        model = model.merge_and_unload() if merged else model
    return cases.run(model, name)


BLOCKS = "backbone/block_*"
MADE = {
    "lora": ("bert", lambda p: lora(p, f"{BLOCKS}/attention/{{query,value}}/kernel", key=KEY, rank=4)),
    "lora of many ranks": ("bert", lambda p: lora(
        p, ["**/attention/{query,out}/kernel", "**/embed/token/embedding", "**/mlp/**/kernel"], key=KEY,
        rank={"**": 3, "**/query/kernel": 2, "**/block_01/mlp/**": 5}, alpha={"**": 7.0, "**/token/**": 1.5})),
    "rslora": ("bert", lambda p: lora(p, "**/value/kernel", key=KEY, rank=3, alpha=16.0, rslora=True)),
    "dora": ("bert", lambda p: dora(p, ["**/attention/*/kernel", "**/position/embedding"], key=KEY, rank=2)),
    "pissa": ("bert", lambda p: pissa(p, "**/query/kernel", rank=3)),
    "olora": ("bert", lambda p: olora(p, "**/mlp/*/kernel", rank=3, rslora=True)),
    "vera": ("bert", lambda p: vera(p, "**/attention/{query,value}/kernel", key=KEY, rank=6)),
    "ia3": ("bert", lambda p: ia3(p, "**/attention/{key,value}/kernel", "**/mlp/dense_2/kernel")),
    "ia3 without feedforward": ("bert", lambda p: ia3(p, "**/attention/key/kernel")),
    "lora and head": ("bert", lambda p: join(lora(p, "**/query/kernel", key=KEY), full(p, "head/**"))),
    "lora and a bias of the head": ("bert", lambda p: join(lora(p, "**/query/kernel", key=KEY), full(p, "head/bias"))),
    "lora and its biases": ("bert", lambda p: join(
        lora(p, "**/query/kernel", key=KEY), full(p, "**/block_01/attention/query/bias"))),
    "lora and all biases": ("bert", lambda p: join(lora(p, "**/query/kernel", key=KEY), full(p, "**/bias"))),
    "lora and norms": ("bert", lambda p: join(
        lora(p, "**/mlp/*/kernel", key=KEY), full(p, ["**/norm_1/*", "backbone/embed/norm/scale"]))),
    "ia3 and head": ("bert", lambda p: join(ia3(p, "**/value/kernel"), full(p, "head/**"))),
    "norms": ("bert", lambda p: full(p, "**/norm_*/**")),
    "biases": ("bert", lambda p: full(p, "**/bias")),
    "tables": ("bert", lambda p: full(p, "backbone/embed/**")),
    "vit": ("vit", lambda p: join(
        lora(p, ["**/attention/{query,value}/kernel", "backbone/embed/patch/kernel"], key=KEY), full(p, "head/**"))),
    "class token": ("vit", lambda p: join(lora(p, "**/mlp/*/kernel", key=KEY), full(p, "backbone/embed/cls"))),
    "resnet": ("resnet", lambda p: lora(p, "**/conv{,_*}/kernel", key=KEY, rank=2, alpha=1.0)),
    "resnet dora": ("resnet", lambda p: join(
        dora(p, "**/conv_2/kernel", key=KEY, rank=2), full(p, ["head/**", "**/stage_1/**/norm_1/{scale,bias}"]))),
    "resnet ia3": ("resnet", lambda p: ia3(p, "**/conv_1/kernel", "**/conv_2/kernel")),
    "convnext": ("convnext", lambda p: join(
        lora(p, "**/stage_2/**/dense_*/kernel", key=KEY, rank=2), full(p, "head/**"))),
}  # fmt: skip
"""Adapters made here: the base, and how."""
FAST = ["lora of many ranks", "dora", "vera", "ia3", "lora and all biases", "norms", "vit"]


def everyday(names, fast):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.one_in(6)
@pytest.mark.parametrize("case", everyday(MADE, FAST))
def test_peft_loads_ours_without_a_warning_and_computes_the_same(case, tmp_path):
    name, make = MADE[case]
    base = peft_cases.base(name)
    adapters = stirred(make(base.params))
    save_adapters(adapters, tmp_path / "ours", base.model, base.params)
    found = peft_cases.outputs(base, name, merge(base.params, adapters))
    for merged in (False, True):
        np.testing.assert_allclose(theirs(name, tmp_path / "ours", merged), found, rtol=0, atol=1e-5)
    again = load_adapters(tmp_path / "ours", base.model, base.params).adapters
    np.testing.assert_allclose(peft_cases.outputs(base, name, merge(base.params, again)), found, rtol=0, atol=1e-5)


THEIRS = {
    "all-linear": ("bert", {"target_modules": "all-linear", "r": 3, "task_type": "SEQ_CLS"}),
    "rank by expression": ("bert", {
        "target_modules": ["query", "dense"], "rank_pattern": {r"layer\.0\..*dense": 2}, "alpha_pattern": {"query": 3},
        "use_rslora": True, "use_dora": True}),
    "targets in saved and excluded modules": ("bert", {
        "target_modules": ["query", "value", "classifier"], "modules_to_save": ["classifier"],
        "exclude_modules": ["value"]}),
    "layers and everything": ("vit", {
        "target_modules": ["q_proj", "fc1"], "layers_to_transform": [0], "layers_pattern": "layers", "bias": "all",
        "modules_to_save": ["classifier"]}),
    "convolutions": ("resnet", {"r": 2, "target_modules": ["convolution"], "use_rslora": True, "use_dora": True}),
}  # fmt: skip
"""Settings that the golden file does not have."""


@pytest.mark.one_in(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", THEIRS)
def test_theirs_compute_here_what_they_compute_there(case, tmp_path):
    name, options = THEIRS[case]
    torch.manual_seed(0)
    model = peft.get_peft_model(cases.base_model(name), peft.LoraConfig(**options)).eval()
    state = peft.get_peft_model_state_dict(model)
    tensors = cases.made_tensors(case, {leaf: tuple(x.shape) for leaf, x in state.items()})
    peft.set_peft_model_state_dict(model, {leaf: torch.from_numpy(x) for leaf, x in tensors.items()})
    model.save_pretrained(tmp_path)
    base = peft_cases.base(name)
    found = merge(base.params, load_adapters(tmp_path, base.model, base.params).adapters)
    np.testing.assert_allclose(peft_cases.outputs(base, name, found), cases.run(model, name), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", everyday(cases.CASES, ["bert vera", "vit of transformers 4"]))
def test_the_golden_file_is_what_peft_says(case):
    made = cases.result(case)
    np.testing.assert_allclose(made["out"], peft_cases.STORED[f"{case}/out"], rtol=0, atol=1e-5)
    assert {name: tuple(shape) for name, shape in peft_cases.about(case)["shapes"].items()} == {
        name: tuple(shape) for name, shape in peft_cases.json.loads(str(made["about"]))["shapes"].items()
    }
