"""Imports run one way; whoever turns an arrow round hears of it here."""

import ast
import pathlib

import pytest

import tljax

ROOT = pathlib.Path(tljax.__file__).parent
# Lower layers first. A package may import itself and anything in an earlier row, never its own row's others.
LAYERS = (
    {"types"},
    {"processes"},
    {"tree"},
    {"checkpoints"},
    {"models"},
    {"plans", "peft", "objectives", "probes", "merging", "data"},
    {"scores"},
    {"evaluation"},
    {"features", "selection", "training"},
    {"recipes"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
HEAVY = {"orbax", "matplotlib", "sklearn", "PIL", "torch", "grain", "tokenizers", "equinox", "transformers"}
HEAVY |= {"huggingface_hub"}


def level(package: str) -> int:
    return next(i for i, row in enumerate(LAYERS) if package in row)


def imported(file: pathlib.Path) -> set[str]:
    """The parts of tljax that `file` imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("tljax.")}


def sources() -> list[pathlib.Path]:
    return [f for f in sorted(ROOT.rglob("*.py")) if f != ROOT / "__init__.py"]


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file: pathlib.Path) -> None:
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in imported(file) - {own, "__version__"}:
        assert level(other) < level(own), f"{own} must not import {other}"


def test_every_package_has_its_place() -> None:
    packages = {f.relative_to(ROOT).parts[0].removesuffix(".py") for f in sources()}
    assert packages <= set().union(*LAYERS)


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_optional_and_slow_packages_are_imported_on_first_use(file: pathlib.Path) -> None:
    for node in ast.parse(file.read_text()).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {n.split(".")[0] for n in names} & HEAVY, f"{file}:{node.lineno}"


def test_no_private_api_of_others() -> None:
    for file in sources():
        text = file.read_text()
        assert "jax._src" not in text, f"{file} reaches into jax._src"
        assert "flax._" not in text, f"{file} reaches into flax"
