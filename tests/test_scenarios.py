"""The maps of Fn's behaviours name tests that there are, and each row has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPS = ("scenarios.md", "front-end.md")
ROWS = [
    line
    for name in MAPS
    for line in (ROOT / "docs" / "explanation" / name).read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| behaviour |"))
]


def _tests_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:42].strip())
def test_each_scenario_has_tests_that_exist(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named, "no test is named"
    for file, name in named:
        assert name in _tests_of(ROOT / "tests" / file), f"there is no {file}::{name}"


def test_the_maps_are_read() -> None:
    assert len(ROWS) > 200
