"""An engine that never answers, breaks off, or says something strange."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from hostler._concurrency.drain import DrainBudget
from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import (
    DockerDriver,
    EngineError,
    EngineOperation,
    EngineTimeout,
    EngineUnreachable,
    InitMissing,
    open_docker_driver,
)
from hostler.drivers.docker.cookie import DockerCookie
from hostler.drivers.docker.driver import CLOSE_GRACE
from hostler.drivers.docker.engine import LIMITS, ThreadGroup, open_engine
from hostler.errors import ServerBusy, SyslogUnavailable

from ...conftest import Logs
from .conftest import WAIT
from .fake_engine import FakeEngine, error, nothing, value
from .http_server import BREAK, Answer, Request, json_answer

SHORT = 0.2
"""Seconds: the limit of a call that is to hang, and of no other, which may take longer."""


@pytest.fixture
async def driver(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> AsyncIterator[DockerDriver]:
    """A driver on a fake engine on which every step succeeds."""
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", value({"Id": "id"}, 201))
    fake_engine.on("POST /containers/id/(un)?pause", nothing)
    fake_engine.on("POST /containers/ctr/start", nothing)
    fake_engine.on("DELETE /containers/ctr", nothing)
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
            yield driver
            fake_engine.release()


@contextmanager
def hasty(driver: DockerDriver, operation: EngineOperation) -> Iterator[None]:
    """The operation has a `SHORT` limit in the block."""
    limits = driver._shared.engine._limits
    before = limits[operation]
    limits[operation] = SHORT
    yield
    limits[operation] = before


async def until(driver: DockerDriver, step: str) -> DockerCookie:
    """A cookie on which everything before ``step`` was done."""
    cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
    for name in ("validate_image", "create_container", "run", "freeze", "unfreeze"):
        if name == step:
            break
        await getattr(cookie, name)()
    return cookie


def test_every_call_has_a_limit_and_threads() -> None:
    assert set(LIMITS) == set(EngineOperation)
    assert {operation.group for operation in EngineOperation} == set(ThreadGroup)
    assert all(group.threads > 0 for group in ThreadGroup)
    assert all(limit > 0 for limit in LIMITS.values())
    assert LIMITS[EngineOperation.PAUSE] == LIMITS[EngineOperation.UNPAUSE] == 5


STEPS = {
    "validate_image": ("GET /images/img/json", EngineOperation.INSPECT_IMAGE),
    "create_container": ("POST /containers/create", EngineOperation.CREATE),
    "run": ("POST /containers/ctr/start", EngineOperation.START),
    "freeze": ("POST /containers/id/pause", EngineOperation.PAUSE),
    "unfreeze": ("POST /containers/id/unpause", EngineOperation.UNPAUSE),
    "aclose": ("DELETE /containers/ctr", EngineOperation.REMOVE),
}


LAUNCH = ("validate_image", "create_container", "run")


@contextmanager
def raises_trouble(step: str, kind: type[EngineError]) -> Iterator[list[BaseException | None]]:
    """The block raises ``kind``; from a step of a launch as the cause of a `ServerBusy`, so that
    the call can be tried elsewhere. What the block gets is the error of ``kind``."""
    found: list[BaseException | None] = []
    with pytest.raises(ServerBusy if step in LAUNCH else kind) as caught:
        yield found
    found.append(caught.value.__cause__ if step in LAUNCH else caught.value)
    assert isinstance(found[0], kind)


@pytest.mark.parametrize("step", STEPS)
async def test_hung_step_fails_in_time(
    driver: DockerDriver, fake_engine: FakeEngine, step: str, logs: Logs
) -> None:
    """Weakness 04/2: also pause, unpause and inspect."""
    pattern, operation = STEPS[step]
    cookie = await until(driver, step)
    fake_engine.on(pattern, fake_engine.hang)
    started = trio.current_time()
    with hasty(driver, operation), raises_trouble(step, EngineTimeout) as caught:
        await getattr(cookie, step)()
    assert operation.value in str(caught[0])
    assert SHORT <= trio.current_time() - started < WAIT / 2
    # What could not be removed still belongs to the driver.
    assert driver.statistics().containers == (step != "validate_image")
    fake_engine.on("DELETE /containers/ctr", nothing)
    await cookie.aclose()
    assert driver.statistics().containers == 0
    assert not logs.with_event("left behind")


@pytest.mark.parametrize("step", STEPS)
async def test_refused_step_raises_what_the_engine_says(
    driver: DockerDriver, fake_engine: FakeEngine, step: str
) -> None:
    pattern, operation = STEPS[step]
    cookie = await until(driver, step)
    fake_engine.on(pattern, error(500, "no luck today"))
    with pytest.raises(EngineError, match=f"{operation.value}: no luck today") as caught:
        await getattr(cookie, step)()
    assert caught.value.status == 500
    fake_engine.on("DELETE /containers/ctr", nothing)
    await cookie.aclose()


@pytest.mark.parametrize("step", STEPS)
async def test_broken_connection(driver: DockerDriver, fake_engine: FakeEngine, step: str) -> None:
    async def break_off(request: Request) -> Answer:
        return BREAK

    pattern, _operation = STEPS[step]
    cookie = await until(driver, step)
    fake_engine.on(pattern, break_off)
    with raises_trouble(step, EngineUnreachable):
        await getattr(cookie, step)()
    fake_engine.on("DELETE /containers/ctr", nothing)
    await cookie.aclose()


async def test_hung_connect(fake_engine: FakeEngine, fake_environ: dict[str, str]) -> None:
    fake_engine.on("GET /version", fake_engine.hang)
    with trio.fail_after(WAIT), pytest.raises((EngineTimeout, EngineUnreachable)):
        async with open_docker_driver(
            AgentConfig(), environ=fake_environ, limits={EngineOperation.CONNECT: SHORT}
        ):
            pass


async def test_calls_wait_for_a_thread_only_within_their_limit(
    driver: DockerDriver, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many hung creations must not keep anybody waiting without end, nor pauses at all."""
    monkeypatch.setattr("hostler.drivers.docker.containers.LATE_CREATION", 0.0)
    running = await until(driver, "freeze")
    fake_engine.on("POST /containers/create", fake_engine.hang)
    outcomes: list[str] = []

    async def create(number: int) -> None:
        cookie = await driver.create_cookie(ContainerTask(id=f"c{number}", image="img"))
        await cookie.validate_image()
        with raises_trouble("create_container", EngineTimeout):
            await cookie.create_container()
        outcomes.append("timeout")
        await cookie.aclose()

    fake_engine.on(r"DELETE /containers/c\d+", error(404, "No such container"))
    with hasty(driver, EngineOperation.CREATE):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(create, number)
            await fake_engine.wait_for("POST /containers/create", int(ThreadGroup.CREATE.threads))
            await running.freeze()
    assert outcomes == ["timeout"] * 40
    await running.aclose()


@pytest.mark.parametrize("late", [0, 3, None])
async def test_a_creation_without_an_answer_may_still_happen(
    driver: DockerDriver,
    fake_engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    late: int | None,
) -> None:
    """An engine that hung makes the container after it was asked to remove it; or never."""
    monkeypatch.setattr("hostler.drivers.docker.containers.LATE_CREATION_PAUSE", 0.01)
    if late is None:
        monkeypatch.setattr("hostler.drivers.docker.containers.LATE_CREATION", 0.1)
    asked = 0

    async def remove(request: Request) -> Answer:
        nonlocal asked
        asked += 1
        there = late is not None and asked > late
        return await (nothing if there else error(404, "No such container"))(request)

    fake_engine.on("POST /containers/create", fake_engine.hang)
    fake_engine.on("DELETE /containers/ctr", remove)
    cookie = await until(driver, "create_container")
    with hasty(driver, EngineOperation.CREATE), raises_trouble("create_container", EngineTimeout):
        await cookie.create_container()
    await cookie.aclose()
    assert driver.statistics().containers == 0
    assert asked == late + 1 if late is not None else 1 < asked <= 11


async def test_interrupted_creation_is_removed(
    driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    """The engine answers long after the caller was cancelled: the removal waits for that."""
    answer = trio.Event()

    async def slow(request: Request) -> Answer:
        await answer.wait()
        return json_answer({"Id": "id"}, 201)

    fake_engine.on("POST /containers/create", slow)
    cookie = await until(driver, "create_container")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when, fake_engine, "POST /containers/create", scope)
            await cookie.create_container()
        assert scope.cancelled_caught
        nursery.start_soon(cookie.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert fake_engine.count("DELETE .*") == 0
        answer.set()
    assert fake_engine.count("DELETE /containers/ctr") == 1
    assert driver.statistics().containers == 0


async def _cancel_when(engine: FakeEngine, pattern: str, scope: trio.CancelScope) -> None:
    await engine.wait_for(pattern)
    scope.cancel()


async def test_interrupted_close_goes_on(driver: DockerDriver, fake_engine: FakeEngine) -> None:
    answer = trio.Event()

    async def slow(request: Request) -> Answer:
        await answer.wait()
        return Answer(204)

    cookie = await until(driver, "freeze")
    fake_engine.on("DELETE /containers/ctr", slow)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when, fake_engine, "DELETE .*", scope)
            await cookie.aclose()
        assert scope.cancelled_caught
    answer.set()
    await cookie.aclose()
    assert fake_engine.count("DELETE .*") == 1
    assert driver.statistics().containers == 0


async def test_closing_the_driver_removes_what_is_left(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", value({"Id": "id"}, 201))
    fake_engine.on("DELETE /containers/ctr", error(500, "busy"))
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        cookie = await until(driver, "run")
        with pytest.raises(EngineError, match="busy"):
            await cookie.aclose()
    assert fake_engine.count("DELETE .*") == 2
    (told,) = logs.with_event("containers left behind")
    assert told["containers"] == ["ctr"]


async def test_a_removal_that_hangs_ends_with_the_grace(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", value({"Id": "id"}, 201))
    fake_engine.on("DELETE /containers/ctr", fake_engine.hang)
    grace = DrainBudget(0.1, removal=0.4)
    config = AgentConfig(container_label_tag="t")
    async with open_docker_driver(config, environ=fake_environ, grace=grace) as driver:
        cookie = await until(driver, "run")
        with trio.move_on_after(0):
            await cookie.aclose()
        began = trio.current_time()
    assert 0.4 <= trio.current_time() - began < CLOSE_GRACE / 2
    (told,) = logs.with_event("containers left behind")
    assert (told["containers"], told["next_start_removes"]) == (["ctr"], "all")
    fake_engine.release()


async def test_hung_engine_does_not_block_shutdown(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """With every limit far away, a cancelled program still ends."""
    fake_engine.on("GET /images/img/json", fake_engine.hang)
    with trio.move_on_after(WAIT) as scope:
        async with (
            open_docker_driver(AgentConfig(), environ=fake_environ) as driver,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_cancel_when, fake_engine, "GET /images/.*", scope)
            await until(driver, "create_container")
    assert scope.cancelled_caught
    fake_engine.release()


@pytest.mark.parametrize("status", [404, 409])
async def test_removal_tolerates_others(
    driver: DockerDriver, fake_engine: FakeEngine, status: int
) -> None:
    cookie = await until(driver, "run")
    answer = {404: "No such container: ctr", 409: "removal of container ctr is already in progress"}
    fake_engine.on("DELETE /containers/ctr", error(status, answer[status]))
    fake_engine.on("POST /containers/ctr/wait", error(404, "No such container: ctr"))
    await cookie.aclose()
    assert driver.statistics().containers == 0
    assert fake_engine.count("POST /containers/ctr/wait") == (status == 409)


async def test_other_conflicts_are_errors(driver: DockerDriver, fake_engine: FakeEngine) -> None:
    cookie = await until(driver, "run")
    fake_engine.on("DELETE /containers/ctr", error(409, "is locked"))
    with pytest.raises(EngineError, match="is locked"):
        await cookie.aclose()
    fake_engine.on("DELETE /containers/ctr", nothing)
    await cookie.aclose()


@pytest.mark.parametrize(
    ("step", "status", "text", "expected"),
    [
        ("create_container", 404, "No such image: img:latest", ServerBusy),
        ("create_container", 404, "No such network: x", EngineError),
        ("run", 500, "failed to initialize logging driver: dial tcp", SyslogUnavailable),
        ("run", 400, 'exec: "docker-init": executable file not found in $PATH', InitMissing),
    ],
)
async def test_translated_errors(
    driver: DockerDriver,
    fake_engine: FakeEngine,
    step: str,
    status: int,
    text: str,
    expected: type[Exception],
) -> None:
    cookie = await until(driver, step)
    fake_engine.on(STEPS[step][0], error(status, text))
    with pytest.raises(expected) as caught:
        await getattr(cookie, step)()
    assert type(caught.value) is expected
    await cookie.aclose()


async def test_missing_init_names_the_package(
    driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    cookie = await until(driver, "run")
    text = 'exec: "docker-init": executable file not found in $PATH'
    fake_engine.on("POST /containers/ctr/start", error(400, text))
    with pytest.raises(InitMissing, match=r"Debian's docker\.io package"):
        await cookie.run()
    await cookie.aclose()


async def test_what_is_sent_to_create(driver: DockerDriver, fake_engine: FakeEngine) -> None:
    """The storage option, which not every engine accepts, and the name."""
    task = ContainerTask(id="ctr", image="img", fs_size_mb=7, env={"A": "b"})
    cookie = await driver.create_cookie(task)
    await cookie.validate_image()
    await cookie.create_container()
    [request] = [r for r in fake_engine.requests if r.path.endswith("/containers/create")]
    payload: dict[str, Any] = msgspec.json.decode(request.body)
    assert request.query == {"name": "ctr"}
    assert payload == cookie.options.payload()
    assert payload["HostConfig"]["StorageOpt"] == {"size": "7M"}
    await cookie.aclose()


async def test_threads_left_behind_come_back(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """The socket's own time limit ends a thread whose caller has gone."""
    limits = dict.fromkeys(EngineOperation, SHORT) | {EngineOperation.CONNECT: 2.0}
    engine = await open_engine(fake_environ, limits)
    fake_engine.on("GET /images/img/json", fake_engine.hang)

    def inspect(client: Any) -> None:
        client.inspect_image("img")

    with trio.fail_after(WAIT):
        with pytest.raises(EngineTimeout):
            await engine.call(EngineOperation.INSPECT_IMAGE, inspect)
        assert engine.threads() == 1
        while engine.threads():
            await trio.testing.wait_all_tasks_blocked(0.01)
    await engine.aclose()
