"""The maps of Fn's behaviours, and of limits, name tests that there are, and each row has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hostler.config import EnvConfig, describe

ROOT = Path(__file__).parent.parent
LIMITS = ROOT / "docs" / "reference" / "limits.md"
MAPS = (
    ROOT / "docs" / "explanation" / "scenarios.md",
    ROOT / "docs" / "explanation" / "front-end.md",
    LIMITS,
)
ROWS = [
    line
    for page in MAPS
    for line in page.read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| behaviour |", "| door |"))
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


def test_the_settings_of_limits_are_those_that_there_are() -> None:
    kinds = EnvConfig.__subclasses__()
    known = {info.variable for kind in kinds for info in describe(kind)}
    named = set(re.findall(r"`(FN_\w+)`", LIMITS.read_text()))
    assert len(named) > 30
    assert named <= known
