"""What starting costs: which modules are imported when, and the share that tljax adds to what it stands on."""

import json
import pathlib
import subprocess
import sys

import pytest

HEAVY = ("orbax", "grain", "matplotlib", "tokenizers", "PIL", "sklearn", "torch", "tensorstore", "scipy", "pandas")
SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "startup.py"

FIRST_CALLS = f"""
import sys
def found(when):
    print(when, *[name for name in {HEAVY} if name in sys.modules])
import tljax as tl
assert "jax" not in sys.modules
for name in tl.__all__:
    getattr(tl, name)
found("names:")
import jax, numpy as np, optax
x, y = np.ones((8, 3), np.float32), np.arange(8) % 2
model = tl.models.mlp((4,), num_classes=2)
params, _ = tl.graft(model.init(jax.random.key(0), x), model.init(jax.random.key(1), x), reinit="head/**")
result = tl.fit(model, params, tl.cross_entropy(), train=(x, y), valid=(x, y), optimizer=optax.sgd(0.1), steps=2,
                progress=False)
tl.evaluate(model, result.params, (x, y))
found("calls:")
"""


def process(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_heavy_modules_are_imported_where_they_are_needed_and_not_before():
    assert process(FIRST_CALLS).splitlines() == ["names:", "calls:"]


@pytest.mark.parametrize("command", ["", "finetune", "transfer", "evaluate"])
def test_help_imports_neither_jax_nor_numpy(command):
    """So it answers at once: benchmarks/startup.py."""
    code = f"""
import sys
from tljax.cli import main
try:
    main({[command] if command else []} + ["--help"])
except SystemExit:
    pass
print()
print(*[name for name in ("jax", "numpy", "flax", "optax", "rich") if name in sys.modules])
"""
    assert process(code).splitlines()[-1] == ""


@pytest.mark.slow
def test_tljax_adds_little_to_what_it_stands_on(tmp_path):
    output = tmp_path / "found.json"
    arguments = ["--rounds", "5", "--commands", "0", "--output", str(output)]
    subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, timeout=300, capture_output=True)
    found = json.loads(output.read_text())
    assert found["added"]["and tljax"] < 0.15
    assert found["seconds"]["tljax --help"]["cpu"] < 0.5
