"""Folders of peft, read: every kind computes what peft computes, and nothing is left out in silence."""

import numpy as np
import peft_cases
import pytest

from tljax.peft import load_adapters, merge

CASES = list(peft_cases.cases.CASES)
FAST = (
    *("bert lora", "bert norms", "bert ia3", "bert vera", "bert loha"),
    *("vit patches dora", "resnet lora", "resnet lokr"),
)
"""Every kind of adapter, on text, images and convolutions; the slow ones differ in their settings."""


@pytest.mark.one_in(7)
@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_same_outputs_as_peft(case, tmp_path):
    name = peft_cases.cases.CASES[case][0]
    base = peft_cases.base(name)
    adapters = load_adapters(peft_cases.written(case, tmp_path / "adapter"), base.model, base.params).adapters
    found = peft_cases.outputs(base, name, merge(base.params, adapters))
    np.testing.assert_allclose(found, peft_cases.STORED[f"{case}/out"], rtol=0, atol=1e-5)
