"""Commands keep compiled programs in the user's cache folder: the second process compiles none of them again."""

import argparse
import os
import pathlib
import subprocess
import sys
import types

import pytest

from tljax.cli import build_parser
from tljax.commands.cache import MOST_BYTES, cache_folder, keep_programs

SCRIPT = """
import sys
from tljax.commands import cache
cache.LEAST_SECONDS = 0
cache.keep_programs(cache.argparse.Namespace())
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: jnp.tanh(x) * 3)(jnp.ones(3)).block_until_ready()
print(hits.count("/jax/compilation_cache/cache_hits"), jax.config.jax_compilation_cache_dir)
"""


def process(**variables: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_COMPILATION_CACHE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, env=kept | variables, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "not kept" not in done.stderr
    return done.stdout.split()


def test_the_second_process_finds_what_the_first_compiled(tmp_path: pathlib.Path) -> None:
    first, second = process(XDG_CACHE_HOME=str(tmp_path)), process(XDG_CACHE_HOME=str(tmp_path))
    assert int(first[0]) == 0 < int(second[0])
    assert first[1] == second[1]
    assert pathlib.Path(first[1]).parent == tmp_path / "tljax" / "xla"
    assert any(pathlib.Path(first[1]).iterdir())


class Config(types.SimpleNamespace):
    """In the place of jax.config: the settings that are made, without making them."""

    jax_enable_compilation_cache = True
    jax_compilation_cache_dir = None

    def update(self, name: str, value: object) -> None:
        self.made = {**self.made, name: value}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    found = Config(made={})
    monkeypatch.setattr("jax.config", found)
    return found


def test_the_folder_is_bounded_and_named_by_the_processor(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_programs(argparse.Namespace())
    assert config.made["jax_compilation_cache_dir"] == str(cache_folder())
    assert config.made["jax_compilation_cache_max_size"] == MOST_BYTES
    assert cache_folder() == cache_folder()


def test_a_folder_that_cannot_be_written_to_is_told_and_all_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_programs(argparse.Namespace())
    assert config.made == {}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path / "file") in said


def test_the_users_own_settings_stay(config: Config) -> None:
    config.jax_compilation_cache_dir = "/elsewhere"
    keep_programs(argparse.Namespace())
    config.jax_compilation_cache_dir, config.jax_enable_compilation_cache = None, False
    keep_programs(argparse.Namespace())
    assert config.made == {}


@pytest.mark.parametrize("command", ["transfer", "finetune", "adapt", "probe", "rank", "evaluate run"])
def test_every_command_that_compiles_can_do_without(command: str, config: Config) -> None:
    assert not build_parser().parse_args(command.split()).no_compile_cache
    keep_programs(build_parser().parse_args([*command.split(), "--no-compile-cache"]))
    assert config.made == {"jax_enable_compilation_cache": False}
