"""What the documentation says is true."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

import hostler
from hostler.cli import app
from hostler.cli.reference import reference_page
from hostler.config import (
    AgentConfig,
    EnvConfig,
    LBConfig,
    NodeConfig,
    PlacerConfig,
    PoolConfig,
    RunnerConfig,
    StoreConfig,
    describe,
)

CLASSES = [AgentConfig, NodeConfig, LBConfig, PlacerConfig, PoolConfig, RunnerConfig, StoreConfig]
PACKAGE = Path(hostler.__file__).parent
ROOT = Path(__file__).parent.parent
MADE = ROOT / "docs" / "reference" / "made"
"""Pages that only the build makes."""
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent != MADE]


def test_the_settings_page_is_in_step() -> None:
    page = ROOT / "docs" / "reference" / "configuration.md"
    how = "run scripts/generate"
    assert page.read_text() == reference_page(app), how


def test_the_settings_page_has_the_variables_of_the_commands() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = set(re.findall(r"^\| `(FN_\w+)`", page, re.MULTILINE))
    commands = ["api", "lb", "options", "runner", "serve"]
    texts = [(PACKAGE / "cli" / f"{name}.py").read_text() for name in commands]
    named = {name for text in texts for name in re.findall(r"\bFN_[A-Z_]+\b", text)}
    assert {"FN_FUNCTIONS", "FN_RUNNER_HOOKS", "FN_PLACER"} <= named <= rows


@functools.cache
def _attributes_read() -> set[str]:
    """Names of all attributes that the package reads, other than in its settings classes; and of
    those behind the properties of these that it reads."""
    read: set[str] = set()
    behind: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if "config" not in path.relative_to(PACKAGE).parts:
            read |= _loads(tree)
        else:
            behind |= {
                node.name: _loads(node)
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef)
                and "property" in map(ast.unparse, node.decorator_list)
            }
    return read.union(*(names for name, names in behind.items() if name in read))


def _loads(tree: ast.AST) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_a_setting_has_an_effect_or_says_that_it_has_none(kind: type[EnvConfig]) -> None:
    read = _attributes_read()
    for info in describe(kind):
        used = info.field in read
        assert used != ("No effect" in " ".join(info.doc.split())), f"{info.field}: used={used}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        path = (page.parent / target).resolve()
        if "://" not in target and path.parent != MADE:
            assert path.exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    top = r"(?:src|tests|scripts|benchmarks|examples|deploy|proto|docs|changelog)"
    for name in re.findall(rf"`({top}/[\w./-]+)", page.read_text()):
        # Tests are named by their path in tests/, which has a folder of benchmarks, too.
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), (
            f"{page.name} names {name}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`(test_\w+)`", page.read_text()):
        assert name in _test_sources(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_package_that_are_named_exist(page: Path) -> None:
    # The changelog tells of names that went.
    if page.name != "CHANGELOG.md":
        for name in re.findall(r"`(hostler(?:\.\w+)+)", page.read_text()):
            assert _exists(name), f"{page.name} names {name}"


def _exists(name: str) -> bool:
    """Whether ``name`` is a module, or an attribute or a field of something in a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if part in getattr(thing, "__annotations__", {}):
                return True
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@functools.cache
def _test_sources() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
