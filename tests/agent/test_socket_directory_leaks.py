"""Socket directories that a dead process has left, and those that only look like it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from hostler._file_locks import LockFileRemoved, lock_new, try_lock
from hostler.agent import socket_directory
from hostler.agent.socket_directory import make_socket_directory, remove_leaked_directories
from hostler.config import AgentConfig
from hostler.errors import ConfigError

from ..conftest import Logs

pytestmark = pytest.mark.process

OWNER = """
import sys
from hostler.agent.socket_directory import make_socket_directory
from hostler.config import AgentConfig
config = AgentConfig(
    iofs_path=sys.argv[1], container_label_tag=sys.argv[2], iofs_tmpfs=sys.argv[3] == "tmpfs"
)
made = [make_socket_directory(config) for _ in range(3)]
print(*(directory.path for directory in made), flush=True)
sys.stdin.read()
"""


@attrs.define
class Owner:
    """Another process that has three directories."""

    process: subprocess.Popen[str]
    paths: set[str]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def open_owner(folder: Path, tag: str = "", kind: str = "plain") -> Iterator[Owner]:
    command = [sys.executable, "-c", OWNER, str(folder), tag, kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Owner(process, set(process.stdout.readline().split()))
        process.kill()


def paths(folder: Path) -> set[str]:
    return {str(path) for path in folder.iterdir()}


def mount_points() -> set[str]:
    return {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}


async def test_only_the_dead_ones_of_our_tag_go(tmp_path: Path, logs: Logs) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), container_label_tag="ours")
    with (
        open_owner(tmp_path, "ours") as dead,
        open_owner(tmp_path, "ours") as alive,
        open_owner(tmp_path, "theirs") as other,
    ):
        own = make_socket_directory(config)
        (tmp_path / "iofs_else").mkdir()
        others = paths(tmp_path) - dead.paths
        assert await remove_leaked_directories(config) == 0
        dead.kill()
        other.kill()
        path = Path(min(dead.paths))
        (path / "sub").mkdir()
        (path / "sub" / "file").write_text("x")
        (path / "lsnr.sock").symlink_to(tmp_path)
        descriptors = len(os.listdir("/proc/self/fd"))
        assert await remove_leaked_directories(config) == 3
        assert paths(tmp_path) == others
        assert alive.paths < others
        assert len(os.listdir("/proc/self/fd")) == descriptors
        await own.remove()
    [line] = logs.with_event("leaked socket directories removed")
    assert line["count"] == 3


async def test_directories_that_are_tmpfs(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), iofs_tmpfs=True)
    with open_owner(tmp_path, kind="tmpfs") as owner:
        if not owner.paths:
            pytest.skip("mounting needs root")
        assert await remove_leaked_directories(config) == 0
        assert owner.paths <= mount_points()
        owner.kill()
        assert await remove_leaked_directories(config) == 3
    assert paths(tmp_path) == set()
    assert not owner.paths & mount_points()


async def test_what_is_no_directory_is_left_alone(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path))
    own = make_socket_directory(config)
    name = Path(own.path).name[:-3]
    (tmp_path / f"{name}aaa").write_text("a file")
    (tmp_path / f"{name}bbb").symlink_to("/usr")
    before = paths(tmp_path)
    assert await remove_leaked_directories(config) == 0
    assert paths(tmp_path) == before
    await own.remove()


async def test_a_failing_removal_is_told(
    tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_owner(tmp_path) as owner:
        owner.kill()

    def fail(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(shutil, "rmtree", fail)
    await remove_leaked_directories(AgentConfig(iofs_path=str(tmp_path)))
    assert len(logs.with_event("leaked socket directory not removed")) == 3
    assert paths(tmp_path) == owner.paths


@pytest.mark.parametrize("kind", ["plain", "tmpfs"])
def test_a_directory_that_vanishes_at_birth_is_made_again(tmp_path: Path, kind: str) -> None:
    """A cleaner that runs all the time, against somebody who makes directories."""
    config = AgentConfig(iofs_path=str(tmp_path), iofs_tmpfs=kind == "tmpfs")
    over = threading.Event()

    def clean() -> None:
        while not over.is_set():
            socket_directory._remove_leaked(socket_directory._seize_leaked(config))

    if kind == "tmpfs" and os.geteuid() != 0:
        pytest.skip("mounting needs root")
    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        made = [make_socket_directory(config) for _ in range(200)]
    finally:
        over.set()
        cleaner.join()
    assert paths(tmp_path) == {directory.path for directory in made}
    for directory in made:
        trio.run(directory.remove)
    assert paths(tmp_path) == set()


def test_locks(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    create = os.O_RDWR | os.O_CREAT
    with pytest.raises(OSError, match="No such file"):
        os.stat(path)
    assert try_lock(path, os.O_RDWR) is None
    first = lock_new(path, create, shared=True)
    second = lock_new(path, create, shared=True)
    os.close(first)
    assert try_lock(path, os.O_RDWR) is None
    with pytest.raises(LockFileRemoved):
        lock_new(path, create)
    os.close(second)
    seized = try_lock(path, os.O_RDWR)
    assert seized is not None
    with pytest.raises(LockFileRemoved):
        lock_new(path, create, shared=True)
    os.close(seized)


@pytest.mark.parametrize("name", ["missing", "file", "file/below"])
async def test_a_place_that_is_no_directory_is_a_mistake_in_the_setting(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    config = AgentConfig(iofs_path=str(tmp_path / name))
    with pytest.raises(ConfigError) as caught:
        await remove_leaked_directories(config)
    assert str(caught.value) == f"FN_IOFS_PATH={tmp_path / name}: no such directory"


async def test_a_place_where_nothing_can_be_made_is_one_too() -> None:
    """A runner would begin, and fail each call."""
    with pytest.raises(ConfigError) as caught:
        await remove_leaked_directories(AgentConfig(iofs_path="/proc/self"))
    assert str(caught.value) == "FN_IOFS_PATH=/proc/self: can't be used: No such file or directory"
