"""The process driver: what it kills, and what happens if hostler or its warden is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.process import (
    ProcessContainer,
    WardenLost,
    open_process_driver,
)
from hostler.drivers.process.warden_client import FunctionProcess
from hostler.errors import HostlerError
from hostler.testing import ReadyWatch, ScriptBroke, call_function
from tests.functions.build import fnt_path

from .processes import (
    ask,
    children_of,
    created,
    is_warden,
    make_task,
    opened,
    pid_end,
    processes_with,
    started,
    state_of,
)


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
        with pytest.raises(ScriptBroke):
            await ask(path, "exit=7")
        result = await container.wait()
        assert (result.status, result.exit_code) == ("error", 7)
        await pid_end(child)
        with pytest.raises(HostlerError, match="not running"):
            await cookie.freeze()
        await cookie.aclose()


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


async def test_nobody_waits_for_a_warden_that_is_no_longer_heard(
    tmp_path: Path, logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with open_process_driver(images={"fnt": [str(fnt_path())]}) as driver:
            cookie, container, _ = await started(driver, make_task(tmp_path))
            pids.extend([driver.warden.pid, container.pid])
            monkeypatch.setattr(FunctionProcess, "hear", fail)
            try:
                with pytest.raises(WardenLost):
                    await cookie.freeze()
            finally:
                with trio.CancelScope(shield=True):
                    await cookie.aclose()

    pids: list[int] = []
    with trio.fail_after(60), pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)
    assert [state_of(pid) for pid in pids] == ["", ""]
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
    with trio.fail_after(60):
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


async def test_hostler_killed_in_the_middle_of_starting(tmp_path: Path) -> None:
    """Whatever was on its way to the warden, or half started by it, ends too."""
    script = Path(__file__).with_name("kill_me.py")
    with trio.fail_after(60):
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
