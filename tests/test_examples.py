"""The examples and the demo do what they say, run as a newcomer runs them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functions import build

EXAMPLES = Path(__file__).parent.parent / "examples"
LIMIT_SECONDS = 60


def run(*command: str, docker_host: str = "") -> str:
    """What the example prints; it has to succeed and to keep quiet on stderr."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER_HOST": docker_host},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_lb_and_runner_in_one_program() -> None:
    first, second = run(str(EXAMPLES / "library" / "one_program.py")).splitlines()
    assert first.startswith("Hello Ada (cold, runner 127.0.0.1:")
    assert second.startswith("Hello Grace (hot, runner 127.0.0.1:")


def check_demo(told: str) -> None:
    calls = [line for line in told.splitlines() if line.lstrip().startswith("ran on runner")]
    kinds = ["cold" if ", cold," in line else "hot" for line in calls]
    assert kinds == ["cold", "hot", "cold", "hot"], told
    assert told.count("200 'Hello Ada'") == 3
    assert "TENANT_TIER=gold" in told
    assert "TENANT_TIER=bronze" in told
    assert "202 with 0 bytes" in told
    assert "Containers left: 0" in told


def test_the_demo_with_processes() -> None:
    check_demo(run(str(EXAMPLES / "demo"), "--command", shlex.join(build.fdk_command())))


@pytest.mark.docker
def test_the_demo_with_docker(docker_host: str) -> None:
    image = build.fdk_image(docker_host)
    told = run(str(EXAMPLES / "demo"), "--image", image, docker_host=docker_host)
    check_demo(told)
    assert "gold, CpuShares=2048" in told
    assert "bronze, CpuShares=256" in told
