"""Folders of peft, written: what is read again is the same, and what peft cannot express is refused by name."""

import numpy as np
import peft_cases
import pytest

from tljax.peft import load_adapters, merge, save_adapters
from tljax.tree import named_leaves

CASES = [case for case in peft_cases.cases.CASES if "loha" not in case and "lokr" not in case]


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_written(case, tmp_path):
    base = peft_cases.base(peft_cases.cases.CASES[case][0])
    adapters, _ = load_adapters(peft_cases.written(case, tmp_path / "in"), base.model, base.params)
    save_adapters(adapters, tmp_path / "out", base.model, base.params)
    again = load_adapters(tmp_path / "out", base.model, base.params).adapters
    one, two = (named_leaves(merge(base.params, found)) for found in (adapters, again))
    for name, leaf in one.items():
        np.testing.assert_allclose(two[name], leaf, rtol=1e-6, atol=1e-6, err_msg=name)
