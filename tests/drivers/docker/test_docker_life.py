"""Containers on a real engine, from their start to their removal."""

from __future__ import annotations

import contextlib
from pathlib import Path

import docker
import pytest
import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from hostler.abc import RunResult
from hostler.drivers.docker import DockerOptions, EngineError
from hostler.drivers.docker.cookie import DockerCookie
from hostler.errors import ContainerExited, ContainerOutOfMemory, SyslogUnavailable

from ...conftest import Logs
from .conftest import WAIT, Bench

pytestmark = pytest.mark.docker


async def prepared(bench: Bench, start: str = "", **fields: object) -> DockerCookie:
    cookie = await bench.driver.create_cookie(bench.task(start, **fields))
    await cookie.validate_image()
    await cookie.create_container()
    return cookie


def socket_of(cookie: DockerCookie) -> Path:
    [bind] = cookie.options.host_config["Binds"]
    return Path(bind.split(":")[0], "lsnr.sock")


async def ready(cookie: DockerCookie) -> Path:
    """Wait until the function has its socket."""
    path = socket_of(cookie)
    with trio.fail_after(WAIT), INotify() as inotify:
        inotify.add_watch(path.parent, flags.CREATE)
        while not path.is_symlink():
            await trio.lowlevel.wait_readable(inotify.fileno())
            inotify.read(timeout=0)
    return path


async def ask(path: Path, do: str) -> bytes:
    """One request to the function; the whole answer, whose end is the connection's."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        head = f"POST /call HTTP/1.1\r\nHost: x\r\nFnt-Do: {do}\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(head.encode())
        return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("code", [0, 1, 7])
async def test_exit_codes(bench: Bench, code: int) -> None:
    result = await bench.run_to_end(bench.task(f"exit={code}"))
    if code == 0:
        assert result == RunResult("success")
        return
    assert (result.status, result.exit_code) == ("error", code)
    assert isinstance(result.error, ContainerExited)
    assert result.error.message == f"container exit code {code}"
    assert result.error.blame == "user"


async def test_out_of_memory(bench: Bench) -> None:
    cookie = await prepared(bench, memory=32 << 20)
    container = await cookie.run()
    await ask(await ready(cookie), "leak=100;close=after")
    with trio.fail_after(WAIT):
        result = await container.wait()
    assert (result.status, result.exit_code) == ("killed", 137)
    assert isinstance(result.error, ContainerOutOfMemory)
    await cookie.aclose()


async def test_killed_from_outside_is_not_out_of_memory(bench: Bench) -> None:
    cookie = await prepared(bench)
    container = await cookie.run()
    bench.engine.kill(container.id)
    with trio.fail_after(WAIT):
        result = await container.wait()
    assert (result.status, result.exit_code) == ("error", 137)
    await cookie.aclose()


async def test_wait_by_many_again_and_cancelled(bench: Bench) -> None:
    cookie = await prepared(bench)
    container = await cookie.run()
    results: list[RunResult] = []

    async def wait() -> None:
        results.append(await container.wait())

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            with trio.CancelScope() as scope:
                scope.cancel()
                await container.wait()
            assert scope.cancelled_caught
            assert bench.inspect(container.id)["State"]["Running"]
            bench.engine.kill(container.id)
        results.append(await container.wait())
        await cookie.aclose()
        results.append(await container.wait())
    assert {result.exit_code for result in results} == {137}
    assert len(results) == 4


async def test_removal_ends_the_wait(bench: Bench) -> None:
    cookie = await prepared(bench)
    container = await cookie.run()
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(container.wait)
            await cookie.aclose()
        assert (await container.wait()).exit_code == 137


async def test_removed_by_somebody_else(bench: Bench) -> None:
    cookie = await prepared(bench)
    container = await cookie.run()
    bench.engine.remove_container(container.id, force=True)
    with trio.fail_after(WAIT):
        assert (await container.wait()).exit_code == 137
        await cookie.aclose()


async def test_many_containers_need_one_thread(bench: Bench) -> None:
    cookies = [await prepared(bench) for _ in range(8)]
    running = [await cookie.run() for cookie in cookies]
    assert bench.driver.statistics().watched == 8
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            for container in running:
                nursery.start_soon(container.wait)
            await trio.testing.wait_all_tasks_blocked()
            while bench.driver.statistics().threads > 1:  # one that has just started a container
                await trio.testing.wait_all_tasks_blocked(0.01)
            for container in running:
                bench.engine.kill(container.id)
        async with trio.open_nursery() as nursery:
            for cookie in cookies:
                nursery.start_soon(cookie.aclose)


async def test_freeze_stops_and_unfreeze_resumes(bench: Bench) -> None:
    cookie = await prepared(bench)
    await cookie.run()
    path = await ready(cookie)
    await cookie.freeze()
    assert bench.inspect(cookie.options.name)["State"]["Paused"]
    answers: list[bytes] = []

    async def question() -> None:
        answers.append(await ask(path, "pid;close=after"))

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(question)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert not answers
            await cookie.unfreeze()
    assert answers[0].startswith(b"HTTP/1.1 200 ")
    await cookie.aclose()


async def test_frozen_container_can_be_removed(bench: Bench) -> None:
    cookie = await prepared(bench)
    container = await cookie.run()
    await cookie.freeze()
    with trio.fail_after(WAIT):
        await cookie.aclose()
        assert (await container.wait()).exit_code == 137


async def test_freezing_what_has_ended_fails(bench: Bench) -> None:
    cookie = await prepared(bench, "exit=0")
    container = await cookie.run()
    with trio.fail_after(WAIT):
        await container.wait()
    for step in (cookie.freeze, cookie.unfreeze):
        with pytest.raises(EngineError) as caught:
            await step()
        assert caught.value.status is not None
    await cookie.aclose()


async def test_environment_and_identity_reach_the_function(bench: Bench) -> None:
    cookie = await prepared(bench)
    await cookie.run()
    answer = await ask(await ready(cookie), "env;close=after")
    for text in (b'"uid":1000', b'"gid":1000', b"unix:/tmp/iofs/lsnr.sock"):
        assert text in answer.replace(b'": ', b'":')
    await cookie.aclose()


async def test_output(bench: Bench) -> None:
    got: list[tuple[bytes, bool]] = []
    task = bench.task("out=hello;err=bad;exit=3")
    task.on_output = lambda chunk, is_stderr: got.append((chunk, is_stderr))
    result = await bench.run_to_end(task)
    assert result.exit_code == 3
    assert b"".join(chunk for chunk, is_stderr in got if not is_stderr) == b"hello\n"
    assert b"".join(chunk for chunk, is_stderr in got if is_stderr) == b"bad\n"


async def test_much_output_is_complete(bench: Bench) -> None:
    size = 0

    def count(chunk: bytes, is_stderr: bool) -> None:
        nonlocal size
        size += len(chunk)

    cookie = await prepared(bench, on_output=count)
    container = await cookie.run()
    await ask(await ready(cookie), "outlines=500;close=after")
    await ask(socket_of(cookie), "exit=0")
    with trio.fail_after(WAIT):
        assert await container.wait() == RunResult("success")
    assert size == 500 * 1001
    await cookie.aclose()


async def test_broken_logger_is_not_the_functions_trouble(bench: Bench, logs: Logs) -> None:
    def broken(chunk: bytes, is_stderr: bool) -> None:
        raise RuntimeError("full")

    assert await bench.run_to_end(bench.task("out=hello;exit=0", on_output=broken)) == RunResult(
        "success"
    )
    logs.expect_error("on_output failed")


async def test_closing_ends_the_capture(bench: Bench) -> None:
    cookie = await prepared(bench, on_output=lambda chunk, is_stderr: None)
    await cookie.run()
    with trio.fail_after(WAIT):
        while bench.driver.statistics().threads != 2:  # one that has just started the container
            await trio.testing.wait_all_tasks_blocked(0.01)
    await cookie.aclose()  # the fixture waits for the thread's end


async def test_unreachable_syslog(bench: Bench) -> None:
    """Reference 07 §8."""
    cookie = await prepared(bench, syslog_url="tcp://127.0.0.1:1", app_id="a", fn_id="f")
    found = bench.inspect(cookie.options.name)["HostConfig"]["LogConfig"]
    assert found["Type"] == "syslog"
    assert found["Config"]["tag"] == "app_id=a,fn_id=f"
    with pytest.raises(SyslogUnavailable, match="Syslog Unavailable"):
        await cookie.run()
    await cookie.aclose()


async def test_program_that_does_not_exist(bench: Bench) -> None:
    cookie = await bench.driver.create_cookie(bench.task())
    options: DockerOptions = cookie.options
    options.config["Entrypoint"] = ["/missing"]
    options.host_config["Init"] = False
    await cookie.validate_image()
    await cookie.create_container()
    with pytest.raises(EngineError, match="start container"):
        await cookie.run()
    await cookie.aclose()


@pytest.mark.parametrize("step", ["validate_image", "create_container", "run", "freeze"])
async def test_cancelled_step_leaves_nothing(bench: Bench, step: str) -> None:
    """Cancelled at once, and again when the engine is at work; the fixture looks for leftovers."""
    for delay in (0.0, 0.002, 0.02):
        cookie = await bench.driver.create_cookie(bench.task())
        steps = ("validate_image", "create_container", "run", "freeze")
        for name in steps[: steps.index(step)]:
            await getattr(cookie, name)()
        with trio.move_on_after(delay):
            await getattr(cookie, step)()
        with trio.fail_after(WAIT):
            await cookie.aclose()
        assert bench.containers() == []


async def test_cancelled_close_goes_on(bench: Bench) -> None:
    cookie = await prepared(bench)
    await cookie.run()
    with trio.CancelScope() as scope:
        scope.cancel()
        await cookie.aclose()
    with trio.fail_after(WAIT):
        await cookie.aclose()
    assert bench.containers() == []


async def test_two_removals_at_once(bench: Bench) -> None:
    """The engine answers the second with a conflict, or that there is no such container."""
    cookie = await prepared(bench)
    container = await cookie.run()

    def remove() -> None:
        with contextlib.suppress(docker.errors.APIError):  # ours may have been the first
            bench.engine.remove_container(container.id, force=True)

    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, remove)
            nursery.start_soon(cookie.aclose)
    assert bench.containers() == []
