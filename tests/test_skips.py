"""Skipped tests count as failed where everything is said to be there (tests/conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

def test_a():
    pytest.skip("a is missing")

@pytest.mark.skipif(True, reason="b is missing")
def test_b():
    pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="others than root may skip what needs root")
def test_a_skip_is_a_failure_where_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "tests.conftest", tmp_path],
        env={**os.environ, "HOSTLER_TEST_DOCKER": "required"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1].startswith("1 failed, 1 error in")
