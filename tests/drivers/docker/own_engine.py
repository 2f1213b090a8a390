"""An engine of a test's own, to be killed, restarted and stopped while it is in use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import docker
import pytest
import trio

from tests.support.stopping import stop_process

from ...functions import build

SCRIPT = Path(__file__).parents[3] / "scripts" / "_engine"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START = 60
"""Seconds for an engine to start, or to end with all that it has."""

# In a network name space of its own: an engine that starts again tidies up bridges, also those of
# other engines. And in a mount name space, where it may see control groups of version 2. Starts an
# engine, then another one on the same data for each line that it reads.
KEEPER = f"""
set -euo pipefail
ip link set lo up
if [[ -n ${{CGROUP2:-}} ]]; then
  umount --recursive --lazy /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
source {SCRIPT}
ENGINE_DEFAULT_SOCKET=/nowhere/socket
trap engine_stop EXIT
engine_start
echo "$ENGINE_PID $ENGINE_DIR"
while read -r _; do
  wait "$ENGINE_PID" || true
  _engine_spawn
  echo "$ENGINE_PID $ENGINE_DIR"
done
"""

needs_dockerd = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd", path=PATH),
    reason="starting an engine needs root and dockerd",
)


@attrs.define
class OwnEngine:
    """A running engine with the test function as image ``fnt``."""

    keeper: trio.Process
    pid: int
    host: str

    async def restart(self) -> None:
        """Kill the engine, and start it on the same data; returns when it was started."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.keeper.stdin is not None
        await self.keeper.stdin.send_all(b"again\n")
        self.pid, _folder = await _started(self.keeper)

    def stop(self) -> None:
        """From now on it takes connections but does not answer."""
        stop_process(self.pid)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def containers(self) -> list[str]:
        """All containers; waits until the engine answers."""
        return await trio.to_thread.run_sync(self._containers)

    def _containers(self) -> list[str]:
        while True:
            try:
                client = docker.APIClient(base_url=self.host, version="auto", timeout=START)
            except docker.errors.DockerException:
                time.sleep(0.05)  # between two engines
                continue
            try:
                return [str(container["Names"]) for container in client.containers(all=True)]
            finally:
                client.close()


@asynccontextmanager
async def open_own_engine(*, cgroup2: bool = False) -> AsyncIterator[OwnEngine]:
    """Start one beside whatever other there is; all of it is gone at the end.

    ``cgroup2``: with control groups of version 2, also where the machine has version 1. There the
    engine has no controllers then, because a controller belongs to one version at a time.
    """
    keeper = await trio.lowlevel.open_process(
        ["unshare", "--net", "--mount", "bash", "-c", KEEPER],
        env={"PATH": PATH, "CGROUP2": "yes" if cgroup2 else ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        pid, folder = await _started(keeper)
        engine = OwnEngine(keeper, pid, f"unix://{folder}/docker.sock")
        await trio.to_thread.run_sync(build.docker_image, engine.host, "fnt")
        yield engine
        engine.go_on()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + START):
            assert keeper.stdin is not None
            await keeper.stdin.aclose()
            await keeper.wait()


async def _started(keeper: trio.Process) -> tuple[int, str]:
    assert keeper.stdout is not None
    line = b""
    with trio.fail_after(START):
        while not line.endswith(b"\n"):
            data = await keeper.stdout.receive_some()
            assert data, "the engine did not start"
            line += data
    pid, folder = line.decode().split()
    return int(pid), folder
