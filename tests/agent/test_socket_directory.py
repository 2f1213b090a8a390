"""Socket directories, the socket check, and the watcher."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler._concurrency.directory_watch import open_directory_watcher
from hostler._concurrency.gate import Gate, GateClosed
from hostler.agent import Resources, open_agent
from hostler.agent.socket_directory import BadSocket, SocketDirectory, make_socket_directory
from hostler.config import AgentConfig
from hostler.drivers.sim import open_sim_driver
from hostler.errors import ConfigError


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def make(tmp_path: Path) -> tuple[SocketDirectory, Path]:
    directory = make_socket_directory(AgentConfig(iofs_path=str(tmp_path)))
    return directory, Path(directory.path)


def test_directory_is_open_to_the_functions_user(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), iofs_docker_path="/outside")
    directory = make_socket_directory(config)
    name = os.path.basename(directory.path)
    assert name.startswith("iofs")
    assert directory.docker_path == f"/outside/{name}"
    assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o777


def test_directory_is_private_without_the_unprivileged_mode(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), disable_unprivileged_containers=True)
    assert stat.S_IMODE(os.stat(make_socket_directory(config).path).st_mode) == 0o700


def test_scenario_03_plain_socket(tmp_path: Path) -> None:
    directory, path = make(tmp_path)
    with listening(path / "lsnr.sock"):
        function_socket = directory.open_socket()
        function_socket.connect().close()
        function_socket.close()
        function_socket.close()


def test_scenario_03_link_to_a_bare_name(tmp_path: Path) -> None:
    directory, path = make(tmp_path)
    with listening(path / "phony"):
        (path / "lsnr.sock").symlink_to("phony")
        function_socket = directory.open_socket()
        function_socket.connect().close()
        function_socket.close()


def test_scenario_03_everything_else_is_bad(tmp_path: Path) -> None:
    directory, path = make(tmp_path)
    name = path / "lsnr.sock"
    descriptors = len(os.listdir("/proc/self/fd"))
    with listening(path / "phony"), listening(tmp_path / "outside"):
        for target in (
            str(path / "phony"),
            f"../{path.name}/phony",
            "./phony",
            "../outside",
            "nowhere",
            ".",
            "..",
        ):
            name.symlink_to(target)
            with pytest.raises(BadSocket):
                directory.open_socket()
            name.unlink()
        (path / "second").symlink_to("../outside")
        name.symlink_to("second")
        with pytest.raises(BadSocket):
            directory.open_socket()
        name.unlink()
        with pytest.raises(BadSocket, match="No such file"):
            directory.open_socket()
        name.write_text("a file")
        with pytest.raises(BadSocket, match="not a socket"):
            directory.open_socket()
        name.unlink()
        name.mkdir()
        with pytest.raises(BadSocket, match="not a socket"):
            directory.open_socket()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_link_that_changes_later_leads_nowhere_else(tmp_path: Path) -> None:
    directory, path = make(tmp_path)
    with (
        listening(path / "phony"),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as evil,
    ):
        evil.bind(str(tmp_path / "evil"))
        evil.listen()
        (path / "lsnr.sock").symlink_to("phony")
        function_socket = directory.open_socket()
        (path / "lsnr.sock").unlink()
        (path / "phony").unlink()
        (path / "lsnr.sock").symlink_to("../evil")
        (path / "phony").symlink_to("../evil")
        function_socket.connect().close()
        with pytest.raises(BlockingIOError):
            evil.accept()
        function_socket.close()


async def test_removal_of_whatever_the_function_left(tmp_path: Path) -> None:
    directory, path = make(tmp_path)
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "file").write_text("x")
    (path / "link").symlink_to(tmp_path)
    for number in range(40):
        (path / f"f{number}").touch()
    await directory.remove()
    assert os.listdir(tmp_path) == []


async def test_a_directory_of_its_own_tmpfs(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), iofs_tmpfs=True, iofs_opts="size=64k")
    try:
        directory = make_socket_directory(config)
    except PermissionError:
        assert os.listdir(tmp_path) == []  # not allowed to mount here: nothing is left
        return
    assert os.path.ismount(directory.path)  # noqa: ASYNC240  (a test)
    mounts = (await trio.Path("/proc/self/mounts").read_text()).splitlines()
    (options,) = [line.split()[3] for line in mounts if line.split()[1] == directory.path]
    assert {"noexec", "nosuid", "nodev", "size=64k"} <= set(options.split(","))
    await directory.remove()
    assert os.listdir(tmp_path) == []


async def test_bad_tmpfs_options_leave_nothing(tmp_path: Path) -> None:
    config = AgentConfig(iofs_path=str(tmp_path), iofs_tmpfs=True, iofs_opts="nonsense=1")
    with pytest.raises(OSError, match="can't mount") as caught:
        make_socket_directory(config)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)
    assert os.listdir(tmp_path) == []


async def test_an_agent_that_may_not_mount_what_it_is_told_to_does_not_start(
    tmp_path: Path,
) -> None:
    """Else all of its calls would fail, and none would be tried elsewhere."""
    config = AgentConfig(iofs_path=str(tmp_path), iofs_tmpfs=True, iofs_opts="nonsense=1")
    async with open_sim_driver({}) as driver:
        with pytest.raises(ConfigError, match=r"FN_IOFS_TMPFS=true: .*can't mount a tmpfs"):
            async with open_agent(driver, config=config, total=Resources(2**30, 4000)):
                raise AssertionError("it has started")
    assert os.listdir(tmp_path) == []


async def test_watches_tell_about_their_own_directory(
    autojump_clock: object, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    async with open_directory_watcher() as watcher:
        with watcher.watch(str(one)) as first, watcher.watch(str(two)) as second:
            assert watcher.watches == 2
            (one / "file").touch()
            await first.wait_changed()
            (two / "new").touch()
            await second.wait_changed()
            (one / "moved").symlink_to("x")
            await first.wait_changed()
            with trio.move_on_after(5) as scope:
                await second.wait_changed()
            assert scope.cancelled_caught
        assert watcher.watches == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_watched_directory_may_vanish(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    async with open_directory_watcher() as watcher:
        with watcher.watch(str(gone)):
            gone.rmdir()
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="No such file"), watcher.watch(str(gone)):
            pass


async def test_gate_refuses_when_closed_and_tells_when_empty() -> None:
    gate = Gate()
    record: list[bool] = []

    async def visit() -> None:
        with gate.enter() as scope:
            await trio.sleep_forever()
        record.append(scope.cancelled_caught)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit)
        nursery.start_soon(visit)
        await trio.testing.wait_all_tasks_blocked()
        gate.close()
        with pytest.raises(GateClosed), gate.enter():
            pass
        assert gate.inside == 2
        gate.cancel_all()
        await gate.wait_empty()
        assert gate.inside == 0
    assert record == [True, True]
