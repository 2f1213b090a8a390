"""The layers of the package hold: an import only points downwards, and foreign worlds (asyncio
with its bridge and gRPC, the Docker SDK) stay in the one place that is theirs.

So do the rules of the house below. What still violates one stands in ``allowed``, and these lists
only get shorter: what is not there must not come, and what is gone must go there, too
(``scripts/shape --cut``)."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

import hostler

from .shape import RULES, House, allowed

PACKAGE = Path(hostler.__file__).parent

LAYERS: dict[str, int] = {
    **dict.fromkeys(
        [
            "_api_documents",
            "_arguments",
            "_call_document",
            "_fast",
            "_spans",
            "_stats",
            "abc",
            "calls",
            "config",
            "datastore",
            "dates",
            "errors",
            "headers",
            "ids",
            "models",
            "protocol",
            "rules",
            "slot_key",
        ],
        0,
    ),
    **dict.fromkeys(
        [
            "_asgi",
            "_concurrency",
            "_declarations",
            "_descriptors",
            "_document",
            "_file_locks",
            "_launch_policy",
            "_output_lines",
            "bodies",
            "contrib",
            "functions",
            "keep_alive",
            "logs",
            "metrics",
            "options",
            "response",
        ],
        1,
    ),
    **dict.fromkeys(["api_client", "drivers", "http1", "store", "tracing", "wire"], 2),
    **dict.fromkeys(["agent", "pool"], 3),
    **dict.fromkeys(["api", "front", "lb", "runner"], 4),
    **dict.fromkeys(["tail", "testing", "ui"], 5),
    **dict.fromkeys(["nodes"], 6),
    **dict.fromkeys(["cli"], 7),
}
TESTS = Path(__file__).parent
OTHER_TESTS = {
    "benchmarks": "benchmarks and attacks",
    "deploy": "the images and manifests of deploy/",
    "docs": "the pages and their code blocks",
    "functions": "the functions that tests and benchmarks call, in C, Python and JavaScript",
    "support": "what tests of several packages and benchmarks share",
    "system": "whole nodes together",
}
"""Folders of tests that are no packages of hostler, and what is tested or kept there."""

MAY_SHARE_A_LAYER = 1
"""Up to this layer modules may import each other (without cycles, or Python would say so)."""

FOREIGN = {
    "asyncio": "wire",
    "trio_asyncio": "wire",
    "grpclib": "wire",
    "betterproto": "wire",
    "docker": "drivers/docker",
    "httpx": "api_client",
    "sqlalchemy": "store",
    "alembic": "store",
    "opentelemetry": "tracing",
}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _test_modules() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


@functools.cache
def _runtime_imports(path: Path) -> set[str]:
    """Absolute names of all that the module imports when it runs (not only for types)."""
    found: set[str] = set()
    parents = ("hostler", *path.relative_to(PACKAGE).parts[:-1])

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def _own(imports: set[str]) -> set[str]:
    """The first component below ``hostler`` of each import of our own."""
    return {name.split(".")[1] for name in imports if name.startswith("hostler.")}


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_imports_point_downwards(path: Path) -> None:
    here = _top(path)
    if here == "__init__":
        return
    assert here in LAYERS, (
        f"{here} has no layer: give it one, here and in docs/explanation/architecture.md"
    )
    for other in _own(_runtime_imports(path)) - {here}:
        if other not in LAYERS:  # a name of the package's own __init__
            continue
        below = LAYERS[other] < LAYERS[here]
        beside = LAYERS[other] == LAYERS[here] <= MAY_SHARE_A_LAYER
        assert below or beside, f"{here} must not import {other}"


def test_the_documented_layers_are_these() -> None:
    page = (PACKAGE.parents[1] / "docs" / "explanation" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", page, re.MULTILINE)
    documented = {name: int(layer) for layer, cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert documented == LAYERS


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_foreign_worlds_stay_in_their_place(path: Path) -> None:
    tops = {name.split(".")[0] for name in _runtime_imports(path)}
    for module, place in FOREIGN.items():
        if module in tops:
            assert _name(path).startswith(place + "/"), f"{module} belongs in {place}/"


@functools.cache
def _house() -> House:
    return House(PACKAGE)


def _holds(rule: str, advice: str) -> None:
    found, listed = set(RULES[rule](_house())), allowed(rule)
    assert listed == sorted(set(listed)), f"tests/allowed/{rule}.txt is to be sorted, no line twice"
    new, gone = sorted(found.difference(listed)), sorted(set(listed) - found)
    assert not new, f"{advice}:\n" + "\n".join(new)
    assert not gone, f"gone: take it out of tests/allowed/{rule}.txt (scripts/shape --cut):\n" + (
        "\n".join(gone)
    )


def test_no_module_imports_itself_through_others() -> None:
    _holds("cycles", "imports that make a cycle, in a function and for types, too")


def test_private_names_are_used_where_they_are_defined() -> None:
    _holds("private_names", "private names of another module: give them a public one, or none")


def test_no_class_name_stands_twice() -> None:
    _holds("class_names", "classes with a name that another module has, too")


def test_packages_stay_small() -> None:
    _holds("large_packages", "packages with more than 17 modules of their own")


def test_private_names_of_a_dependency_are_used_in_one_module() -> None:
    _holds(
        "foreign_private_names",
        "private names of a dependency outside of the module that has its others, or that no "
        "dependency defines any more",
    )


def test_public_names_have_docstrings() -> None:
    _holds("docstrings", "public names without a docstring")


def test_packages_map_their_modules() -> None:
    _holds(
        "maps",
        "packages whose docstring is no map: a line for each module and package in them, "
        "as `MAP_LINE` in tests/shape.py has it, and none for others",
    )


def test_imports_within_the_package_are_relative() -> None:
    _holds("absolute_imports", "modules that import from the package by its name")


def test_tests_stand_where_the_package_stands() -> None:
    """``tests/pool`` tests ``hostler/pool``, and ``tests/test_ids.py`` the module ``ids``."""
    folders = {path.parent.relative_to(TESTS) for path in _test_modules()}
    packages = {path.parent.relative_to(PACKAGE) for path in _modules()}
    others = {folder for folder in folders - packages if folder.parts[0] not in OTHER_TESTS}
    assert not others, f"neither packages of hostler nor in OTHER_TESTS: {others}"
    assert {folder.parts[0] for folder in folders - packages} == set(OTHER_TESTS)


def _imports_of_tests(path: Path) -> set[str]:
    folder = path.relative_to(TESTS.parent).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize(
    "path", _test_modules(), ids=lambda path: path.relative_to(TESTS).as_posix()
)
def test_tests_import_helpers_only(path: Path) -> None:
    """No test module imports another one. Only tests of benchmarks import benchmarks."""
    imports = _imports_of_tests(path)
    assert not [name for name in imports if re.match(r"tests\.(.+\.)?test_", name)]
    if path.parent != TESTS / "benchmarks":
        assert not [name for name in imports if name.split(".")[0] == "benchmarks"]
