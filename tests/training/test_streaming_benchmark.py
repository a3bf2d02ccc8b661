import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "streaming.py"


@pytest.mark.slow
def test_the_streaming_benchmark_on_few_steps(tmp_path):
    pytest.importorskip("grain")
    pytest.importorskip("PIL")
    options = ["--steps", "9", "--batch-size", "8", "--workers", "0", "1", "--output", str(tmp_path / "result.json")]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    models = json.loads((tmp_path / "result.json").read_text())["models"]
    for rows in models.values():
        assert list(rows) == ["in memory", "0 workers", "1 workers"]
        assert all(row["images_per_second"] > 0 for row in rows.values())
    # What has nothing to compute waits for its images, and for no others.
    assert models["linear"]["0 workers"]["input_wait"] > 0.5
    assert models["linear"]["in memory"]["input_wait"] is None
