"""The names that the package offers at its root, and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import hostler


@pytest.mark.parametrize("name", hostler.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(hostler, name) is not None
    assert hostler._HOME[name] in sys.modules or f"hostler.{hostler._HOME[name]}" in sys.modules


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    tree = ast.parse(Path(hostler.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == set(hostler.__all__) == set(hostler._HOME)
    assert set(hostler.__all__) <= set(dir(hostler))


def test_a_wrong_name_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hostler.nothing  # type: ignore[attr-defined]


def test_importing_the_package_loads_no_foreign_world() -> None:
    script = (
        "import sys, hostler; hostler.open_lb_agent, hostler.Call;"
        "print({'docker', 'grpclib', 'hypercorn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


PACKAGE = Path(hostler.__file__).parent


def public_modules() -> list[str]:
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py")]
    places = [file.relative_to(PACKAGE).with_suffix("").parts for file in files]
    names = [".".join(part for part in parts if part != "__init__") for parts in places]
    return sorted(name for name in names if name and not name.startswith("_"))


@pytest.mark.parametrize("name", sorted({*public_modules()} - {"contrib", "drivers", "http1"}))
def test_a_public_module_says_which_of_its_names_are_public(name: str) -> None:
    """(The packages left out have only modules.)"""
    module = importlib.import_module(f"hostler.{name}")
    assert module.__all__
    assert all(hasattr(module, each) for each in module.__all__)
