"""The pool of prepared network name spaces (reference 04 §3.4, 07 §8)."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest
import trio
import trio.testing

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import (
    DockerCookie,
    DockerDriver,
    PreforkStatistics,
    open_docker_driver,
)
from hostler.drivers.docker.prefork import NetworkNamespace
from hostler.drivers.docker.stats import RateLimiter
from hostler.errors import ServerBusy

from ...conftest import Logs
from ...functions.build import docker_image
from .conftest import WAIT, Bench, containers
from .fake_engine import FakeEngine, error, nothing, value
from .http_server import Answer, Request, json_answer


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.01)


def config(tag: str, image: str, size: int, **more: Any) -> AgentConfig:
    return AgentConfig(
        container_label_tag=tag,
        experimental_prefork_pool_size=size,
        experimental_prefork_image=image,
        experimental_prefork_cmd="/fnt",
        **more,
    )


# --- on a real engine ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def idler(docker_host: str) -> str:
    """An image whose program never ends."""
    return docker_image(docker_host, "hostler-test/fnt:hang", ["ENV FNT_START=hang"])


OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def open_bench(
    docker_host: str, engine: docker.APIClient, idler: str, fnt: str, tag: str, open_folder: Path
) -> OpenBench:
    """Opens a driver with a full pool of so many; at the end nothing of it may be left."""

    @asynccontextmanager
    async def opened(size: int, **settings: Any) -> AsyncIterator[Bench]:
        made = config(tag, idler, size, **settings)
        async with open_docker_driver(made, environ={"DOCKER_HOST": docker_host}) as driver:
            await until(lambda: driver.statistics().prefork.free == size)
            yield Bench(driver, engine, tag, fnt, open_folder)
        assert containers(engine, tag) == []

    return opened


@pytest.mark.docker
async def test_pool_of_two(open_bench: OpenBench, logs: Logs) -> None:
    """Two join a name space each, the third gets the configured network, with one warning; what
    was given back last is taken first; nothing is left."""
    async with open_bench(2, docker_networks=("none",)) as bench:
        pool = {f"container:{c['Id']}" for c in bench.containers()}
        cookies = [await bench.driver.create_cookie(bench.task("hang")) for _ in range(4)]
        assert {mode_of(cookie) for cookie in cookies} == {"none"}
        assert bench.driver.statistics().prefork == PreforkStatistics(size=2, free=2)
        for cookie in cookies:
            await cookie.validate_image()
            await cookie.create_container()
        modes = [mode_of(cookie) for cookie in cookies]
        assert set(modes[:2]) == pool
        assert modes[2:] == ["none", "none"]
        assert len(logs.with_event("prefork pool is empty")) == 1
        assert bench.driver.statistics().prefork == PreforkStatistics(size=2, used=2, misses=2)

        joined = cookies[0]
        await joined.run()
        spaces = {
            os.readlink(f"/proc/{bench.inspect(name)['State']['Pid']}/ns/net")
            for name in (joined.options.name, modes[0].removeprefix("container:"))
        }
        assert len(spaces) == 1

        for cookie in cookies:
            await cookie.aclose()
        assert bench.driver.statistics().prefork == PreforkStatistics(size=2, free=2, misses=2)
        assert bench.driver.statistics().networks == {"none": 0}
        latest = await created(bench)
        assert mode_of(latest) == modes[1]
        await latest.aclose()


def mode_of(cookie: DockerCookie) -> str:
    return str(cookie.options.host_config["NetworkMode"])


async def created(bench: Bench) -> DockerCookie:
    cookie = await bench.driver.create_cookie(bench.task("hang"))
    await cookie.validate_image()
    await cookie.create_container()
    return cookie


@pytest.mark.docker
async def test_use_once_and_networks(open_bench: OpenBench) -> None:
    settings = {
        "experimental_prefork_use_once": 1,
        "experimental_prefork_networks": ("none", "bridge"),
    }
    async with open_bench(2, **settings) as bench:
        before = {c["Id"] for c in bench.containers()}
        modes = {bench.inspect(name)["HostConfig"]["NetworkMode"] for name in before}
        assert modes == {"none", "bridge"}
        cookie = await created(bench)
        used = mode_of(cookie).removeprefix("container:")
        await cookie.aclose()
        await until(lambda: bench.driver.statistics().prefork.free == 2)
        after = {c["Id"] for c in bench.containers()}
        assert before - after == {used}
        assert len(after) == 2


@pytest.mark.docker
async def test_name_space_dies_under_a_launch(open_bench: OpenBench) -> None:
    """The launch is refused so that the call can go elsewhere, and the pool is whole again."""
    async with open_bench(1) as bench:
        for step in ("create_container", "run"):
            cookie = await bench.driver.create_cookie(bench.task("hang"))
            await cookie.validate_image()
            if step == "run":
                await cookie.create_container()
                holder = mode_of(cookie).removeprefix("container:")
            else:  # as if it ended between the choice and the engine's look at it
                [holder] = (c["Id"] for c in bench.containers())
                del cookie.options.config["Hostname"]
                cookie.options.host_config["NetworkMode"] = f"container:{holder}"
            await trio.to_thread.run_sync(bench.engine.kill, holder)
            await until(partial(_is_gone, bench, holder))
            with pytest.raises(ServerBusy):
                await _create_and_run(cookie)
            await cookie.aclose()
            await until(lambda: bench.driver.statistics().prefork.free == 1)


def _is_gone(bench: Bench, container_id: str) -> bool:
    return container_id not in {c["Id"] for c in bench.containers()}


async def _create_and_run(cookie: DockerCookie) -> None:
    await cookie.create_container()
    await cookie.run()


@pytest.mark.docker
async def test_containers_that_exit_at_once(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, logs: Logs
) -> None:
    """They neither crash the pool nor block its close."""
    settings = config(tag, fnt, 3)  # fnt without its environment ends with an error
    async with open_docker_driver(settings, environ={"DOCKER_HOST": docker_host}):
        seen: set[str] = set()
        with trio.fail_after(WAIT):
            while len(seen) < 6:  # three, and each of them again
                seen |= {container["Id"] for container in containers(engine, tag)}
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert containers(engine, tag) == []
    assert len(logs.with_event("prefork container fails")) == 1
    assert {line["error"] for line in logs.with_event("prefork")} == {"it has ended by itself"}


# --- on a broken engine ----------------------------------------------------------------------


class PreforkEngine:
    """Creates and starts pool containers; says what was asked for."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.payloads: list[dict[str, Any]] = []
        engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
        engine.on("GET /containers/json", self._list)
        engine.on("POST /containers/create", self._create)
        engine.on(r"POST /containers/\d_prefork_.*/start", nothing)
        engine.on(r"DELETE /containers/\d_prefork_.*", nothing)
        engine.on("DELETE /containers/ctr", nothing)

    async def _list(self, request: Request) -> Answer:
        ids = [f"id{number + 1}" for number in range(len(self.payloads))]
        return json_answer([{"Id": name, "State": "running"} for name in ids])

    async def _create(self, request: Request) -> Answer:
        self.payloads.append(msgspec.json.decode(request.body))
        return json_answer({"Id": f"id{len(self.payloads)}"}, 201)


@asynccontextmanager
async def open_fake_pool(
    engine: FakeEngine, environ: dict[str, str], size: int = 1, **more: Any
) -> AsyncIterator[tuple[DockerDriver, PreforkEngine]]:
    helper = PreforkEngine(engine)
    settings = config("", "img", size, **more)
    with trio.fail_after(WAIT):
        async with open_docker_driver(settings, environ=environ) as driver:
            yield driver, helper


async def test_missing_image_is_pulled(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    """Weakness 04/1. A failing pull is tried again, by one task for all keepers."""
    answers = [error(500, "registry is down"), value({"status": "Pull complete"})]

    async def pull(request: Request) -> Answer:
        return await answers.pop(0)(request)

    fake_engine.on("POST /images/create", pull)
    async with open_fake_pool(fake_engine, fake_environ, 3) as (driver, helper):
        fake_engine.on("GET /images/img/json", error(404, "No such image: img"))
        await until(lambda: driver.statistics().prefork.free == 3)
        assert len(helper.payloads) == 3
    assert answers == []
    [failure] = logs.with_event("prefork image can't be had")
    assert "registry is down" in failure["error"]
    assert fake_engine.count("DELETE .*_prefork_.*") == 3


async def test_vanished_image_is_pulled_again(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    async with open_fake_pool(fake_engine, fake_environ) as (driver, helper):
        await until(lambda: driver.statistics().prefork.free == 1)
        fake_engine.on("GET /images/img/json", error(404, "No such image: img"))
        fake_engine.on("POST /images/create", value({"status": "Pull complete"}))
        fake_engine.on("POST /containers/create", error(404, "No such image: img:latest"))
        driver._shared.exits.forget("id1")
        await fake_engine.wait_for("POST /containers/create", 2)
        fake_engine.on("POST /containers/create", helper._create)
        await until(lambda: driver.statistics().prefork.free == 1)
        assert fake_engine.count("POST /images/create") == 1
    assert logs.with_event("prefork container fails")


async def test_a_cancelled_program_leaves_no_name_space(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    with trio.CancelScope() as scope:
        async with open_fake_pool(fake_engine, fake_environ, 3) as (driver, _helper):
            await until(lambda: driver.statistics().prefork.free == 3)
            scope.cancel()
            await trio.sleep_forever()
    assert fake_engine.count("DELETE .*_prefork_.*") == 3


async def test_nor_does_a_driver_of_which_something_fails(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with open_fake_pool(fake_engine, fake_environ, 3) as (driver, _helper):
            await until(lambda: driver.statistics().prefork.free == 3)
            driver._shared.nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)
    assert fake_engine.count("DELETE .*_prefork_.*") == 3


@pytest.mark.parametrize("freed", ["nonsense", "id9", ""])
async def test_freeing_nonsense_changes_nothing(
    fake_engine: FakeEngine, fake_environ: dict[str, str], freed: str
) -> None:
    async with open_fake_pool(fake_engine, fake_environ) as (driver, _helper):
        pool = driver._shared.prefork
        assert pool is not None
        await until(lambda: pool.statistics().free == 1)
        taken = pool.allocate({})
        assert taken == NetworkNamespace("id1", "")
        pool.free(freed)
        assert pool.allocate({}) is None
        pool.free("id1")
        pool.free("id1")
        assert pool.statistics().free == 1


async def test_what_may_still_be_used_is_replaced(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """A function container that could not be removed may be alive in its name space."""
    async with open_fake_pool(fake_engine, fake_environ) as (driver, helper):
        await until(lambda: driver.statistics().prefork.free == 1)
        fake_engine.on("POST /containers/create", value({"Id": "function"}, 201))
        cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
        await cookie.validate_image()
        await cookie.create_container()
        fake_engine.on("POST /containers/create", helper._create)
        fake_engine.on("DELETE /containers/ctr", error(500, "device busy"))
        with pytest.raises(Exception, match="device busy"):
            await cookie.aclose()
        await until(lambda: driver.statistics().prefork.free == 1)
        assert len(helper.payloads) == 2
        fake_engine.on("DELETE /containers/ctr", nothing)


async def test_keepers_do_not_wait_for_a_hung_engine(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """They stop at once; what the engine still makes is removed afterwards."""
    async with open_fake_pool(fake_engine, fake_environ) as (driver, _helper):
        fake_engine.on("POST /containers/create", fake_engine.hang)
        await fake_engine.wait_for("POST /containers/create")
        pool = driver._shared.prefork
        assert pool is not None
        await pool.aclose()
        assert fake_engine.count("DELETE .*") == 0
        fake_engine.release()
    assert fake_engine.count("DELETE .*_prefork_.*") == 1
    assert fake_engine.count("POST /containers/create") == 1


async def test_options_of_a_pool_container(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    async with open_fake_pool(
        fake_engine, fake_environ, 3, experimental_prefork_networks=("a", "b")
    ) as (driver, helper):
        await until(lambda: driver.statistics().prefork.free == 3)
        payloads = helper.payloads
    assert sorted(p["HostConfig"]["NetworkMode"] for p in payloads) == ["a", "a", "b"]
    for payload in payloads:
        assert payload["Cmd"] == ["/fnt"]
        assert payload["HostConfig"]["LogConfig"] == {"Type": "none"}
        assert payload["Hostname"] == socket.gethostname()
    created = [r for r in fake_engine.requests if r.path.endswith("/containers/create")]
    for request in created:
        index, word, _id = request.query["name"].split("_")
        assert (index.isdigit(), word) == (True, "prefork")


# --- times -----------------------------------------------------------------------------------


async def test_pace(autojump_clock: trio.testing.MockClock) -> None:
    pace = RateLimiter(rate=10, burst=3)
    times = []
    for _ in range(6):
        await pace.wait()
        times.append(round(trio.current_time(), 6))
    assert [round(at - times[0], 6) for at in times] == [0, 0, 0, 0.1, 0.2, 0.3]
    await trio.sleep(100)
    now = trio.current_time()
    for _ in range(3):
        await pace.wait()
    assert trio.current_time() == now
