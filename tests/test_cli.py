"""The command line, in processes of its own where that is the point."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tljax.cli import build_parser, main

SMALL = ["--model", "mlp", "--labels-per-class", "2", "--shots", "1", "--seeds", "2", "--pretrain-steps", "20"]
COMMAND = [sys.executable, "-c", "import sys; from tljax.cli import main; sys.exit(main())"]


ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
"""As a user has it: the same compiler flags in every process, or results differ in their last digit."""


def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout)


def test_help_reads_well_and_imports_no_jax() -> None:
    code = "import sys; from tljax.cli import main; main([]); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert "transfer" in done.stdout


@pytest.mark.parametrize("option", ["--source", "--labels-per-class", "--method", "--run-dir", "--resume", "--config"])
def test_help_of_transfer_tells_every_option(option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["transfer", "--help"])
    text = capsys.readouterr().out
    assert option in text
    assert max(map(len, text.splitlines())) <= 100


def test_an_error_is_one_message_and_a_status(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["transfer", "--source", "nowhere.npz", "--run-dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("tljax: error: ")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trasfer"], "trasfer: did you mean transfer?"),
        (["adapters", "exprt", "x"], "exprt: did you mean export?"),
        (["transfer", "--stepz", "3"], "--stepz: did you mean --steps"),
        (["finetune", "--modle=x", "--data", "y"], "--modle: did you mean --model"),
        (["convert", "a.npz", "b.pt", "--forse"], "--forse: did you mean --force?"),
    ],
)
def test_a_wrong_name_gets_the_nearest(arguments: list[str], hint: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert hint in capsys.readouterr().err


def test_nothing_near_gives_no_hint(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "x", "--zzzzzz"])
    error = capsys.readouterr().err
    assert "unrecognized arguments: --zzzzzz" in error
    assert "did you mean" not in error


def test_an_interrupt_while_jax_is_imported_is_one_line(tmp_path: pathlib.Path) -> None:
    """The import is one that waits and interrupts itself, as the time of the real one is nobody's to rely on."""
    (tmp_path / "jax.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([*COMMAND, "models"], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (130, "tljax: interrupted\n")


def test_debug_shows_the_traceback(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        main(["transfer", "--source", "nowhere.npz", "--run-dir", str(tmp_path), "--debug"])


def test_the_command_line_wins_over_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("tljax.recipes.transfer.run_transfer", lambda settings, show: seen.append(settings))
    (tmp_path / "a.toml").write_text('model = "lenet"\nsteps = 7\nlabels-per-class = 4\n')
    (tmp_path / "b.json").write_text(json.dumps({"model": "lenet", "learning_rates": [0.1]}))
    assert main(["transfer", "--config", str(tmp_path / "a.toml"), "--steps", "9"]) == 0
    assert main(["transfer", "--config", str(tmp_path / "b.json")]) == 0
    assert (seen[0].model, seen[0].steps, seen[0].labels_per_class) == ("lenet", 9, 4)
    assert seen[1].learning_rates == (0.1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [("model = ", "cannot be read as TOML"), ("modle = 'mlp'", "unknown option 'modle'; did you mean 'model'")],
)
def test_bad_files_of_options(text: str, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert main(["transfer", "--config", str(tmp_path / "a.toml")]) == 2
    assert message in capsys.readouterr().err


def test_completion_is_offered_where_shtab_is() -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["--print-completion", "bash"])
    assert stop.value.code == 0


@pytest.mark.slow
def test_killed_at_any_time_it_ends_the_same(tmp_path: pathlib.Path) -> None:
    """SIGKILL after growing delays, then to the end: every result and every log is byte for byte the same.

    The seconds that it took are not; the reports are compared as they are with the same timing.json.
    """
    pytest.importorskip("sklearn")
    command = ["transfer", *SMALL, "--steps", "40", "--quiet"]
    whole = run(*command, "--run-dir", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    broken = [*COMMAND, *command, "--run-dir", str(tmp_path / "broken")]
    for delay in (5.0, 9.0):
        process = subprocess.Popen(broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = run(*command, "--run-dir", str(tmp_path / "broken"))
    assert again.returncode == 0, again.stderr
    shutil.copy(tmp_path / "whole/timing.json", tmp_path / "broken/timing.json")
    again = run(*command, "--run-dir", str(tmp_path / "broken"))
    assert again.returncode == 0, again.stderr
    names = ["results.json", "report.html", "report.md", *_logs(tmp_path / "whole")]
    assert len(names) > 5
    for name in names:
        one, other = ((tmp_path / run_ / name).read_bytes() for run_ in ("broken", "whole"))
        same = one == other  # compared apart: pytest would explain a difference line by line, for hours
        assert same, name


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_143(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("sklearn")
    command = [*COMMAND, "transfer", *SMALL, "--pretrain-steps", "2000000", "--run-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    log = tmp_path / "pretrain" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):  # it is empty until the run catches signals
        time.sleep(0.2)
        assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "same command continues" in errors
    assert "Traceback" not in errors


def _logs(folder: pathlib.Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in sorted(folder.rglob("metrics.jsonl"))]
