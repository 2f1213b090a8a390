"""A part of the tests without any fast way. (``scripts/test plain`` runs all of them so.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .support.plain import PLAIN

TESTS = Path(__file__).parent
PART = (
    *sorted(map(str, TESTS.glob("lb/test_lb_*.py"))),
    *(
        str(TESTS / name)
        for name in (
            "pool/test_grpc_runner.py",
            "pool/test_grpc_runner_begun.py",  # about a fast way: left out
            "runner/test_engagement.py",
            "nodes/test_lb.py",
        )
    ),
)


@pytest.mark.process
@pytest.mark.skipif(PLAIN, reason="all tests run so already")
def test_a_part_of_the_tests_passes_without_fast_ways() -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PART],
        cwd=TESTS.parent,
        env={**ours, "HOSTLER_TEST_PLAIN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " deselected" in done.stdout.splitlines()[-1]
