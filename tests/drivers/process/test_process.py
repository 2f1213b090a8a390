"""The process driver: what it starts, and how."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.abc import ContainerTask
from hostler.drivers.process import (
    ProcessConfig,
)
from hostler.errors import ContainerInitFailed, HostlerError, ImagePullFailed, ServerBusy

from .processes import (
    ask,
    children_of,
    created,
    make_task,
    opened,
    pid_end,
    started,
    state_of,
    status_field,
)


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
        assert str(caught.value).endswith(": its program can't be executed: Exec format error")
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


async def test_a_name_can_be_used_once_at_a_time(tmp_path: Path) -> None:
    async with opened() as driver:
        cookie, _, _ = await started(driver, make_task(tmp_path))
        twin = await created(driver, ContainerTask(id="c1", image="fnt"))
        with pytest.raises(HostlerError, match="in use"):
            await twin.run()
        await twin.aclose()
        await cookie.aclose()


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
