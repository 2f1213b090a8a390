"""``scripts/_engine``: it finds an engine or starts one, and undoes all that it did."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from . import build

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "_engine"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder of programs that note how they were called; root, and nothing works."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "docker", "dockerd", "ip", "iptables"):
        fake(folder, name, "exit 1")
    fake(folder, "id", "echo 0")
    return folder


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/../calls"\n{script}\n')
    path.chmod(0o755)


def calls(folder: Path) -> list[str]:
    path = folder.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def run(script: str, fakes: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{fakes}:{SYSTEM_PATH}" if fakes else SYSTEM_PATH
    tmp = {"TMPDIR": str(fakes.parent)} if fakes else {}
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source {SCRIPT}; {script}"],
        env={"PATH": path, **tmp, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_an_engine_that_answers_is_used(fakes: Path) -> None:
    fake(fakes, "docker", "exit 0")
    done = run(
        'trap engine_stop EXIT; engine_start; echo "$DOCKER_HOST"',
        fakes,
        DOCKER_HOST="tcp://engine:1",
    )
    assert (done.returncode, done.stdout) == (0, "tcp://engine:1\n")
    assert calls(fakes) == ["docker --host tcp://engine:1 version"]


def test_without_root_the_reason_is_told(fakes: Path) -> None:
    fake(fakes, "id", "echo 1000")
    done = run(
        "engine_start || echo fallback; engine_stop",
        fakes,
        DOCKER_HOST="unix:///nowhere/socket",
    )
    assert done.stdout == "fallback\n"
    assert "DOCKER_HOST=unix:///nowhere/socket does not answer" in done.stderr
    assert "needs root" in done.stderr
    assert not [call for call in calls(fakes) if not call.startswith(("docker ", "id "))]


def test_a_dockerd_that_fails_leaves_nothing(fakes: Path) -> None:
    fake(fakes, "ip", "exit 0")
    fake(fakes, "iptables", "exit 0")
    fake(fakes, "dockerd", "echo level=fatal msg=broken; exit 1")
    done = run("trap engine_stop EXIT; engine_start || echo fallback", fakes)
    assert (done.returncode, done.stdout) == (0, "fallback\n")
    assert "level=fatal msg=broken" in done.stderr
    made = calls(fakes)
    rules = [call for call in made if call.startswith("iptables")]
    added, removed = (
        sorted(call.replace(f" {flag} ", " ") for call in rules if f" {flag} " in call)
        for flag in ("-I", "-D")
    )
    assert added == removed
    assert len(added) == 3
    assert len([call for call in made if call.startswith("ip link add")]) == 1
    assert len([call for call in made if call.startswith("ip link del")]) == 1
    assert not list(fakes.parent.glob("engine.*"))


def test_a_failing_installation_is_told(fakes: Path) -> None:
    (fakes / "ip").unlink()
    fake(fakes, "apt-get", "echo E: no such host; exit 100")
    tools = ("bash", "cat", "grep", "id", "mktemp", "rm", "sh", "tail", "timeout")
    for tool in tools:
        if not (fakes / tool).exists():
            (fakes / tool).symlink_to(shutil.which(tool, path=SYSTEM_PATH) or tool)
    done = subprocess.run(
        [fakes / "bash", "-c", f"source {SCRIPT}; engine_start || echo fallback"],
        env={"PATH": str(fakes), "TMPDIR": str(fakes.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "fallback\n"
    assert "could not install iproute2:\nE: no such host" in done.stderr


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd", path=SYSTEM_PATH),
    reason="starting an engine needs root and dockerd",
)
@pytest.mark.parametrize("violence", ["true", 'kill -9 "$ENGINE_PID"'])
def test_an_own_engine_comes_and_goes(tmp_path: Path, violence: str) -> None:
    """Beside whatever other engine there is; also if it is killed while containers run."""
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(build._small_rootfs({"fnt": build.fnt_path().read_bytes()}))
    done = run(
        f"""
        trap engine_stop EXIT
        ENGINE_DEFAULT_SOCKET=/nowhere/socket
        engine_start
        engine_start
        docker import {rootfs} fnt >/dev/null
        id=$(docker run --detach --init --env FNT_START=hang fnt /fnt)
        docker pause "$id" >/dev/null
        docker unpause "$id" >/dev/null
        docker network create other >/dev/null
        docker inspect --format '{{{{.NetworkSettings.IPAddress}}}}' "$id"
        docker inspect --format '{{{{.State.Pid}}}}' "$id"
        echo "$ENGINE_SUBNET" "$ENGINE_BRIDGE" "$ENGINE_PID" "$ENGINE_DIR"
        {violence}
        """
    )
    assert done.returncode == 0, done.stderr
    address, container, line = done.stdout.splitlines()
    subnet, bridge, daemon, folder = line.split()
    assert address.startswith(f"{subnet}.")
    for pid in (container, daemon):
        assert not Path("/proc", pid).exists()
    assert not Path(folder).exists()
    assert folder not in Path("/proc/self/mountinfo").read_text()
    network = _output("ip", "addr") + _output("iptables-save")
    assert f" {subnet}." not in network
    assert bridge not in network


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout
