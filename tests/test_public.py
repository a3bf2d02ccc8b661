"""The public names: each exists, is typed, and documented."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import tljax


@pytest.mark.parametrize("name", tljax.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(tljax, name)
    if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
        assert inspect.getdoc(value), name


PACKAGES = [importlib.import_module(f"tljax.{name}") for name in tljax.__all__ if name in tljax._PACKAGES]
FUNCTIONS = {
    f"{package.__name__}.{name}": value
    for package in PACKAGES
    for name, value in inspect.getmembers(package, inspect.isfunction)
    if value.__module__.startswith("tljax")
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(FUNCTIONS[name]) or "")


def test_the_stub_for_type_checkers_names_the_same() -> None:
    stub = pathlib.Path(tljax.__file__).with_suffix(".pyi")
    names = {"__version__"}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    assert names == set(tljax.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'grafting'"):
        _ = tljax.grafting


def test_import_is_lazy_and_silent() -> None:
    code = "import sys, tljax; print([m for m in ('jax', 'flax', 'orbax', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
