"""The process driver: what it starts, what it kills, and what happens if hostler is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.abc import ContainerTask
from hostler.drivers.process import (
    ProcessConfig,
    ProcessContainer,
    ProcessCookie,
    ProcessDriver,
    WardenLost,
    open_process_driver,
)
from hostler.errors import ContainerInitFailed, HostlerError, ImagePullFailed, ServerBusy
from hostler.testing import FunctionBroke, ReadyWatch, call_function
from tests.functions.build import fnt_path


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[ProcessDriver]:
    """A driver with the image ``fnt``, a time limit, and a check that nothing is left."""
    before = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(20):
        config = ProcessConfig(**settings)
        async with open_process_driver(config, images={"fnt": [str(fnt_path())]}) as driver:
            yield driver
            assert driver.statistics().cookies == 0
            assert driver.statistics().containers == 0
            pid = driver.warden.pid
        assert state_of(pid) == ""
    assert len(os.listdir("/proc/self/fd")) == before


def make_task(folder: Path, name: str = "c1", image: str = "fnt", **more: Any) -> ContainerTask:
    iofs = folder / name
    iofs.mkdir()
    return ContainerTask(id=name, image=image, iofs_agent_path=str(iofs), **more)


async def created(driver: ProcessDriver, task: ContainerTask) -> ProcessCookie:
    cookie = await driver.create_cookie(task)
    assert not await cookie.validate_image()
    await cookie.create_container()
    return cookie


async def started(
    driver: ProcessDriver, task: ContainerTask
) -> tuple[ProcessCookie, ProcessContainer, str]:
    cookie = await created(driver, task)
    with ReadyWatch(task.iofs_agent_path) as watch:
        container = await cookie.run()
        assert isinstance(container, ProcessContainer)
        return cookie, container, await watch.ready()


async def ask(path: str, do: str, body: bytes = b"") -> bytes:
    return (await call_function(path, body, [("Fnt-Do", do)])).body


def state_of(pid: int) -> str:
    """The kernel's letter for the state of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def status_field(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(name + ":"))


def children_of(pid: int) -> list[int]:
    """The child processes of all threads of ``pid``, zombies too. (A child moves to another
    thread when its own ends, so it may be seen twice.)"""
    found = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(child) for child in file.read_text().split()}
    return sorted(found)


def is_warden(pid: int) -> bool:
    """Other children are short-lived: ctypes asks ldconfig for a library."""
    with contextlib.suppress(OSError):
        return b"_warden.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def processes_with(text: str) -> list[int]:
    """Processes with ``text`` in their environment."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if text.encode() in Path("/proc", entry, "environ").read_bytes():
                found.append(int(entry))
    return found


async def pid_end(pid: int) -> None:
    """Wait until the process has ended, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_warns_once_that_it_does_not_isolate(logs: Any) -> None:
    async with opened():
        pass
    (warning,) = logs.with_event("does not isolate")
    assert warning["log_level"] == "warning"


async def test_environment_is_the_tasks_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_HOSTLER", "x")
    async with opened() as driver:
        env = {"A": "b=c\nd", "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock", "LANG": "tlh"}
        task = make_task(tmp_path, env=env)
        cookie, _, path = await started(driver, task)
        seen = json.loads(await ask(path, "env"))["env"]
        assert seen.pop("HOSTLER_CONTAINER_ID") == "c1"
        assert seen.pop("FN_LISTENER") == f"unix:{task.iofs_agent_path}/lsnr.sock"
        assert seen.pop("FN_FORMAT") == "http-stream"
        assert (seen.pop("A"), seen.pop("LANG")) == ("b=c\nd", "tlh")
        assert set(seen) <= set(ProcessConfig().inherited_env)
        assert task.env == env, "the task is the agent's"
        await cookie.aclose()


async def test_freezes_the_whole_group(tmp_path: Path) -> None:
    async with opened() as driver:
        cookie, container, path = await started(driver, make_task(tmp_path))
        child = int(await ask(path, "child"))
        await cookie.freeze()
        assert state_of(container.pid) == "T"
        assert os.getpgid(child) == container.pid
        await cookie.freeze()
        await cookie.unfreeze()
        assert state_of(container.pid) != "T"
        assert await ask(path, "", b"x") == b"x"
        await cookie.freeze()
        await cookie.aclose()
        await pid_end(child)
        assert state_of(container.pid) == ""


@pytest.mark.parametrize("frozen", [False, True])
async def test_close_kills_daemons_of_the_function(tmp_path: Path, frozen: bool) -> None:
    """A grandchild in a session of its own, whose parents are gone, is found all the same."""
    pid_file = tmp_path / "daemon.pid"
    script = f"setsid sh -c 'echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; sleep 1000' &"
    async with opened() as driver:
        task = make_task(tmp_path, image=f"sh -c {json.dumps(script + ' sleep 1000')}")
        with ReadyWatch(str(tmp_path), pid_file.name) as watch:
            cookie = await created(driver, task)
            container = await cookie.run()
            await watch.ready()
        daemon = int(pid_file.read_text())
        assert isinstance(container, ProcessContainer)
        assert os.getsid(daemon) != container.pid
        if frozen:
            await cookie.freeze()
        await cookie.aclose()
        assert state_of(daemon) == "", "killed and reaped when aclose returns"


async def test_daemons_end_when_the_root_ends_by_itself(tmp_path: Path) -> None:
    async with opened() as driver:
        cookie, container, path = await started(driver, make_task(tmp_path))
        child = int(await ask(path, "child"))
        with pytest.raises(FunctionBroke):
            await ask(path, "exit=7")
        result = await container.wait()
        assert (result.status, result.exit_code) == ("error", 7)
        await pid_end(child)
        with pytest.raises(HostlerError, match="not running"):
            await cookie.freeze()
        await cookie.aclose()


async def test_limits_reach_the_function(tmp_path: Path) -> None:
    async with opened() as driver:
        huge = 2**64 - 1
        task = make_task(
            tmp_path, open_files=123, locked_memory=4096, pending_signals=99, message_queue=huge
        )
        cookie, _, path = await started(driver, task)
        text = (await ask(path, "read=/proc/self/limits")).decode()
        limits = {line[:25].strip(): line[25:].split()[:2] for line in text.splitlines()}
        assert limits["Max open files"] == ["123", "123"]
        assert limits["Max locked memory"] == ["4096", "4096"]
        assert limits["Max pending signals"] == ["99", "99"]
        hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
        assert limits["Max msgqueue size"][1] == ("unlimited" if hard == -1 else str(hard))
        await cookie.aclose()


async def test_signals_have_their_default_action(tmp_path: Path) -> None:
    """Python ignores SIGPIPE and the warden SIGTERM: neither may be inherited."""
    async with opened() as driver:
        cookie, container, _ = await started(driver, make_task(tmp_path))
        ignored = int(status_field(container.pid, "SigIgn"), 16)
        assert not ignored & (1 << signal.SIGTERM - 1 | 1 << signal.SIGXFSZ - 1)
        assert int(status_field(container.pid, "SigBlk"), 16) == 0
        os.kill(container.pid, signal.SIGTERM)
        assert (await container.wait()).exit_code == 128 + signal.SIGTERM
        await cookie.aclose()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("library/hello:latest", "no such program: library/hello:latest"),
        ("/nowhere/at/all --flag", "no such program: /nowhere/at/all"),
        ("sh -c 'unbalanced", "not a command line"),
        (" ", "empty"),
    ],
)
async def test_image_that_is_no_program(tmp_path: Path, image: str, reason: str) -> None:
    async with opened() as driver:
        cookie = await driver.create_cookie(make_task(tmp_path, image=image))
        assert await cookie.validate_image()
        with pytest.raises(ImagePullFailed, match=reason) as caught:
            await cookie.pull_image()
        assert caught.value.code == 404
        assert caught.value.message.startswith(f"Failed to pull image '{image}': ")
        await cookie.aclose()


async def test_commands_can_be_forbidden(tmp_path: Path) -> None:
    async with opened(allow_commands=False) as driver:
        cookie = await driver.create_cookie(make_task(tmp_path, image="sleep 1"))
        assert await cookie.validate_image()
        with pytest.raises(ImagePullFailed, match="not allowed"):
            await cookie.pull_image()
        await cookie.aclose()
        cookie, _, _ = await started(driver, make_task(tmp_path, name="c2"))
        await cookie.aclose()


async def test_program_that_vanishes_or_is_none(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\0 neither a script nor ELF")
    program.chmod(0o755)
    async with opened(working_directory=str(tmp_path)) as driver:
        cookie = await created(driver, make_task(tmp_path, image="./program"))
        with pytest.raises(ContainerInitFailed) as caught:
            await cookie.run()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOEXEC
        await cookie.aclose()
        cookie = await driver.create_cookie(make_task(tmp_path, image="./program", name="c2"))
        assert not await cookie.validate_image()
        program.unlink()
        with pytest.raises(ServerBusy):
            await cookie.create_container()
        await cookie.aclose()


async def test_last_output_is_not_lost(tmp_path: Path) -> None:
    out = {False: b"", True: b""}

    def collect(chunk: bytes, is_stderr: bool) -> None:
        out[is_stderr] += chunk

    async with opened() as driver:
        script = "sh -c 'echo last; echo words >&2; exit 5'"
        cookie = await created(driver, make_task(tmp_path, image=script, on_output=collect))
        assert (await (await cookie.run()).wait()).exit_code == 5
        await cookie.aclose()
    assert out == {False: b"last\n", True: b"words\n"}


async def test_output_callback_that_fails_does_not_stop_the_function(
    tmp_path: Path, logs: Any
) -> None:
    def collect(chunk: bytes, is_stderr: bool) -> None:
        raise KeyError("bug")

    async with opened() as driver:
        task = make_task(tmp_path, on_output=collect)
        cookie, _, path = await started(driver, task)
        assert await ask(path, "outlines=500", b"x") == b"x"
        await cookie.aclose()
    logs.expect_error("output callback failed")


async def test_lost_warden_ends_everything_and_is_said(tmp_path: Path, logs: Any) -> None:
    async with opened() as driver:
        cookie, container, path = await started(driver, make_task(tmp_path))
        os.kill(driver.warden.pid, signal.SIGKILL)
        assert (await container.wait()).status == "error"
        await pid_end(container.pid)
        with pytest.raises(ConnectionRefusedError):
            await call_function(path)
        await cookie.aclose()
        cookie = await created(driver, make_task(tmp_path, name="c2"))
        with pytest.raises(WardenLost):
            await cookie.run()
        await cookie.aclose()
    logs.expect_error("warden has ended")


async def test_stop_signals_of_the_control_group_leave_the_warden_alone(tmp_path: Path) -> None:
    async with opened() as driver:
        cookie, _, path = await started(driver, make_task(tmp_path))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(driver.warden.pid, number)
        await cookie.freeze()
        await cookie.unfreeze()
        assert await ask(path, "", b"x") == b"x"
        await cookie.aclose()


async def test_killed_hostler_leaves_no_function_behind(tmp_path: Path) -> None:
    """kill -9, with running and frozen functions and their children."""
    here = Path(__file__)
    command = [sys.executable, str(here.with_name("kill_me.py")), str(fnt_path()), "4"]
    with trio.fail_after(30):
        hostler = await trio.lowlevel.open_process(
            [*command, str(tmp_path)], stdout=subprocess.PIPE
        )
        try:
            assert hostler.stdout is not None
            output = b""
            while not (output.endswith(b"\n") and b"\n[" in output):  # after a log line
                piece = await hostler.stdout.receive_some()
                assert piece, "the subject has ended early"
                output += piece
            pids = json.loads(output.splitlines()[-1])
            assert len(pids) == 9
            assert all(state_of(pid) for pid in pids)
        finally:
            hostler.kill()
            await hostler.wait()
        await hostler.stdout.aclose()
        for pid in pids:
            await pid_end(pid)


async def test_leaving_the_driver_ends_what_was_not_closed(tmp_path: Path) -> None:
    async with open_process_driver(images={"fnt": [str(fnt_path())]}) as driver:
        _, container, path = await started(driver, make_task(tmp_path))
        child = int(await ask(path, "child"))
    assert (state_of(container.pid), state_of(child)) == ("", "")
    with pytest.raises(HostlerError, match="closed"):
        await driver.create_cookie(make_task(tmp_path, name="c2"))


async def test_a_name_can_be_used_once_at_a_time(tmp_path: Path) -> None:
    async with opened() as driver:
        cookie, _, _ = await started(driver, make_task(tmp_path))
        twin = await created(driver, ContainerTask(id="c1", image="fnt"))
        with pytest.raises(HostlerError, match="in use"):
            await twin.run()
        await twin.aclose()
        await cookie.aclose()


async def test_hostler_killed_in_the_middle_of_starting(tmp_path: Path) -> None:
    """Whatever was on its way to the warden, or half started by it, ends too."""
    script = Path(__file__).with_name("kill_me.py")
    with trio.fail_after(30):
        for delay in (0.0, 0.002, 0.004, 0.008):
            hostler = await trio.lowlevel.open_process(
                [sys.executable, str(script), str(fnt_path()), "100000", str(tmp_path)],
                stdout=subprocess.PIPE,
            )
            assert hostler.stdout is not None
            try:
                assert await hostler.stdout.receive_some()  # its warning: the warden runs
                await trio.sleep(delay)  # a different moment each time, not a wait
                (warden,) = filter(is_warden, children_of(hostler.pid))
            finally:
                hostler.kill()
                await hostler.wait()
                await hostler.stdout.aclose()
            await pid_end(warden)
            assert processes_with(str(tmp_path)) == []


async def test_cancelled_while_it_opens() -> None:
    before = len(os.listdir("/proc/self/fd"))
    children = children_of(os.getpid())
    for delay in (0, 0.001, 0.005, 0.01, 0.02, 0.04):
        with trio.move_on_after(delay):
            async with open_process_driver():
                await trio.sleep_forever()
        assert children_of(os.getpid()) == children
        assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_works_while_everything_is_being_cancelled(tmp_path: Path) -> None:
    """An agent closes its containers shielded, inside of a driver that is cancelled too."""
    with trio.CancelScope() as outer:
        async with open_process_driver(images={"fnt": [str(fnt_path())]}) as driver:
            cookie, container, _ = await started(driver, make_task(tmp_path))
            outer.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await cookie.aclose()
                    assert state_of(container.pid) == ""
                    assert (await container.wait()).exit_code == 137
    assert outer.cancelled_caught


@pytest.mark.slow
async def test_a_thousand_containers(tmp_path: Path) -> None:
    """No thread, task or descriptor of ours for each of them."""
    async with opened() as driver:
        before = len(os.listdir("/proc/self/fd"))
        threads = len(os.listdir("/proc/self/task"))
        cookies = []
        for number in range(1000):
            cookie = await created(driver, make_task(tmp_path, name=f"c{number}"))
            await cookie.run()
            cookies.append(cookie)
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(os.listdir("/proc/self/task")) <= threads
        assert driver.statistics().containers == 1000
        assert len(children_of(driver.warden.pid)) == 1000
        async with trio.open_nursery() as nursery:
            for cookie in cookies:
                nursery.start_soon(cookie.aclose)
        assert children_of(driver.warden.pid) == []
