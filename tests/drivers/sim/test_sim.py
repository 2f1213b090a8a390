"""The sim driver: delays on virtual time, faults at every stage, and what handlers can do."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import ContainerTask
from hostler.drivers.sim import (
    SimCookie,
    SimDisconnect,
    SimDriver,
    SimExit,
    SimRequest,
    SimResponse,
    Stage,
    open_sim_driver,
)
from hostler.errors import (
    ContainerExited,
    ContainerOutOfMemory,
    HostlerError,
    ImagePullFailed,
    ImageWithVolume,
    ServerBusy,
)
from hostler.testing import ReadyWatch, ScriptBroke, call_function


def make_task(folder: Path, image: str = "fn", name: str = "c1", **settings: Any) -> ContainerTask:
    iofs = folder / name
    iofs.mkdir(exist_ok=True)
    return ContainerTask(id=name, image=image, iofs_agent_path=str(iofs), **settings)


async def start(driver: SimDriver, task: ContainerTask) -> tuple[SimCookie, str]:
    cookie = await driver.create_cookie(task)
    if await cookie.validate_image():
        await cookie.pull_image()
        assert not await cookie.validate_image()
    await cookie.create_container()
    with ReadyWatch(task.iofs_agent_path) as watch:
        await cookie.run()
        return cookie, await watch.ready()


def fds() -> int:
    gc.collect()  # what tests before have left is not to be closed in between
    return len(os.listdir("/proc/self/fd"))


async def test_every_stage_takes_its_virtual_time(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver:
        driver.add_image(
            "fn", validate_time=1, pull_time=10, create_time=100, start_time=1e3, init_time=1e4
        )
        cookie, path = await start(driver, make_task(tmp_path))
        assert trio.current_time() == pytest.approx(11112, abs=0.1, rel=0)
        assert (await call_function(path, b"hello")).body == b"hello"
        await cookie.aclose()
        assert driver.kinds("c1") == [
            "cookie",
            "pulled",
            "validated",
            "created",
            "started",
            "ready",
            "request",
            "exited",
            "removed",
        ]


async def test_leaves_nothing_behind(autojump_clock: MockClock, tmp_path: Path) -> None:
    before = fds()
    async with open_sim_driver() as driver:
        driver.add_image("fn")
        for name in ("a", "b", "c"):
            cookie, path = await start(driver, make_task(tmp_path, name=name))
            await call_function(path, b"x")
            if name != "c":
                await cookie.aclose()
        assert driver.statistics().running == 1
        assert driver.statistics().removed == 2
    assert driver.statistics().running == 0
    assert fds() == before
    with pytest.raises(HostlerError, match="closed"):
        await driver.create_cookie(make_task(tmp_path))


@pytest.mark.parametrize("stage", ["cookie", "validate", "pull", "create", "start"])
async def test_fault_in_a_launch_stage(
    autojump_clock: MockClock, tmp_path: Path, stage: Stage
) -> None:
    trouble = ServerBusy(message=stage)
    async with open_sim_driver() as driver:
        driver.add_image("fn", pull_time=1, faults={stage: trouble})
        with pytest.raises(ServerBusy, match=stage):
            await start(driver, make_task(tmp_path))
        for cookie in list(driver.cookies):
            await cookie.aclose()
        statistics = driver.statistics()
        assert (statistics.cookies, statistics.containers, statistics.running) == (0, 0, 0)


async def test_a_fault_may_be_a_function_that_hangs_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    hangs = iter([True, False])

    async def fault(task: ContainerTask) -> None:
        if next(hangs):
            await trio.sleep_forever()

    async with open_sim_driver() as driver:
        driver.add_image("fn", faults={"create": fault})
        cookie = await driver.create_cookie(make_task(tmp_path))
        await cookie.validate_image()
        with trio.move_on_after(5) as scope:
            await cookie.create_container()
        assert scope.cancelled_caught
        assert driver.statistics().containers == 1, "an engine would have begun to create it"
        await cookie.aclose()
        assert driver.statistics().containers == 0
        cookie, path = await start(driver, make_task(tmp_path))
        assert (await call_function(path)).status == 200
        await cookie.aclose()


async def test_images_that_are_missing_or_have_volumes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver:
        driver.add_image("volumes", volumes=True)
        with pytest.raises(ImagePullFailed) as caught:
            await start(driver, make_task(tmp_path, image="nowhere"))
        assert caught.value.code == 404
        with pytest.raises(ImageWithVolume):
            await start(driver, make_task(tmp_path, image="volumes", name="c2"))


async def test_image_that_vanished_before_create_is_a_nack(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver:
        image = driver.add_image("fn")
        cookie = await driver.create_cookie(make_task(tmp_path))
        assert not await cookie.validate_image()
        image.on_machine = False
        with pytest.raises(ServerBusy):
            await cookie.create_container()
        await cookie.aclose()
        assert driver.statistics().containers == 0


async def test_frozen_container_accepts_but_does_not_answer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver:
        driver.add_image("fn", freeze_time=1, unfreeze_time=2)
        cookie, path = await start(driver, make_task(tmp_path))
        await cookie.freeze()
        assert driver.statistics().frozen == 1
        answered = []

        async def call() -> None:
            answered.append(await call_function(path, b"late"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.sleep(1000)
            assert answered == []
            await cookie.unfreeze()
        assert answered[0].body == b"late"
        await cookie.freeze()
        await cookie.aclose()
        assert driver.kinds()[-2:] == ["exited", "removed"]


Handler = Callable[[SimRequest], Awaitable[SimResponse]]


async def _exits(request: SimRequest) -> SimResponse:
    raise SimExit(3)


async def _out_of_memory(request: SimRequest) -> SimResponse:
    raise SimExit(137, out_of_memory=True)


async def _exits_half_way(request: SimRequest) -> SimResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise SimExit(4)

    return SimResponse(body=pieces())


@pytest.mark.parametrize(
    ("handler", "error", "code"),
    [
        (_exits, ContainerExited, 3),
        (_out_of_memory, ContainerOutOfMemory, 137),
        (_exits_half_way, ContainerExited, 4),
    ],
)
async def test_container_that_ends_in_a_request(
    autojump_clock: MockClock, tmp_path: Path, handler: Handler, error: type[Exception], code: int
) -> None:
    async with open_sim_driver({"fn": handler}) as driver:
        cookie, path = await start(driver, make_task(tmp_path))
        (container,) = driver.containers()
        with pytest.raises(ScriptBroke):
            await call_function(path)
        result = await container.wait()
        assert isinstance(result.error, error)
        assert result.exit_code == code
        assert driver.statistics().connections == 0
        with pytest.raises(ConnectionRefusedError):
            await call_function(path)
        with pytest.raises(HostlerError, match="not running"):
            await cookie.freeze()
        await cookie.aclose()


async def test_handler_that_raises_is_a_crash_and_an_error_log(
    autojump_clock: MockClock, tmp_path: Path, logs: Any
) -> None:
    async def wrong(request: SimRequest) -> SimResponse:
        raise KeyError("bug")

    async with open_sim_driver({"fn": wrong}) as driver:
        cookie, path = await start(driver, make_task(tmp_path))
        with pytest.raises(ScriptBroke):
            await call_function(path)
        assert (await driver.containers()[0].wait()).exit_code == 1
        logs.expect_error("simulated function raised")
        await cookie.aclose()


async def test_exit_before_the_socket(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_sim_driver() as driver:
        driver.add_image("fn", init_time=2, exit_on_start=0)
        task = make_task(tmp_path)
        cookie = await driver.create_cookie(task)
        await cookie.validate_image()
        await cookie.create_container()
        result = await (await cookie.run()).wait()
        assert result.status == "success"
        assert trio.current_time() == pytest.approx(2, abs=0.1)
        assert os.listdir(task.iofs_agent_path) == []
        await cookie.aclose()


async def test_streams_both_ways_and_keeps_the_connection_after_an_unread_body(
    autojump_clock: MockClock,
    tmp_path: Path,
) -> None:
    async def stream(request: SimRequest) -> SimResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while piece := await request.receive_some():
                yield piece.upper()
                await trio.sleep(1)

        return SimResponse(body=pieces(), headers=[("Fn-Http-Status", "202")])

    async def early(request: SimRequest) -> SimResponse:
        return SimResponse(status=504)

    async def closes(request: SimRequest) -> SimResponse:
        await request.read()
        await request.send_raw(b"HTTP/1.1 200")
        raise SimDisconnect

    async with open_sim_driver({"stream": stream, "early": early, "close": closes}) as driver:
        cookie, path = await start(driver, make_task(tmp_path, image="stream"))
        answer = await call_function(path, b"x" * 100_000)
        assert answer.body == b"X" * 100_000
        assert answer.header("fn-http-status") == "202"
        await cookie.aclose()
        cookie, path = await start(driver, make_task(tmp_path, image="early", name="c2"))
        async with await trio.open_unix_socket(path) as raw:
            for _ in range(2):
                await raw.send_all(b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
                assert (await raw.receive_some()).startswith(b"HTTP/1.1 504")
                await raw.send_all(b"abc")
        await cookie.aclose()
        cookie, path = await start(driver, make_task(tmp_path, image="close", name="c3"))
        with pytest.raises(ScriptBroke):
            await call_function(path)
        assert driver.statistics().running == 1
        await cookie.aclose()


async def test_output_and_environment(autojump_clock: MockClock, tmp_path: Path) -> None:
    out: list[tuple[bytes, bool]] = []

    async def talk(request: SimRequest) -> SimResponse:
        request.container.output(b"oh", stderr=True)
        return SimResponse(body=request.container.env["A"].encode())

    async with open_sim_driver({"fn": talk}) as driver:
        task = make_task(tmp_path, env={"A": "1"}, on_output=lambda d, e: out.append((d, e)))
        cookie = await driver.create_cookie(task)
        cookie.options.env["A"] = "2"
        await cookie.validate_image()
        await cookie.create_container()
        with ReadyWatch(task.iofs_agent_path) as watch:
            await cookie.run()
            path = await watch.ready()
        assert (await call_function(path)).body == b"2"
        assert out == [(b"oh", True)]
        assert task.env == {"A": "1"}
        await cookie.aclose()


async def test_close_ends_containers_but_not_the_block(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver:
        driver.add_image("fn")
        cookie, path = await start(driver, make_task(tmp_path))
        await driver.aclose()
        await driver.aclose()
        await trio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await call_function(path)
        assert driver.statistics().running == 0
        await cookie.aclose()
        assert driver.statistics().containers == 0
