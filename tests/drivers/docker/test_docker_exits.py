"""No exit is missed: events, renewals, outages (on a fake engine, for the timing)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from hostler.abc import ContainerTask, RunningContainer, RunResult
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, EngineError, open_docker_driver
from hostler.drivers.docker.cookie import DockerCookie
from hostler.drivers.docker.running import RENEWAL, result_of

from ...conftest import Logs
from .conftest import WAIT
from .fake_engine import FakeEngine, error, nothing, value
from .http_server import BREAK, Answer, Request


@pytest.fixture
async def driver(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> AsyncIterator[DockerDriver]:
    # The first subscription may begin before or after a test's container.
    fake_engine.on("GET /containers/json", value([{"Id": "id", "State": "running"}]))
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", value({"Id": "id"}, 201))
    fake_engine.on("POST /containers/ctr/start", nothing)
    fake_engine.on("DELETE /containers/ctr", nothing)
    with trio.fail_after(WAIT):
        async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
            yield driver
            fake_engine.release()


async def started(driver: DockerDriver) -> tuple[DockerCookie, RunningContainer]:
    cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
    await cookie.validate_image()
    await cookie.create_container()
    return cookie, await cookie.run()


def died(container_id: str, code: str = "3") -> dict[str, Any]:
    attributes = {"exitCode": code, "name": "ctr"}
    return {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": container_id, "Attributes": attributes},
        "time": 1,
    }


def state(code: int, *, killed: bool = False, running: bool = False) -> Any:
    return value({"State": {"ExitCode": code, "OOMKilled": killed, "Running": running}})


async def test_event_ends_the_wait(driver: DockerDriver, fake_engine: FakeEngine) -> None:
    cookie, container = await started(driver)
    fake_engine.on("GET /containers/id/json", state(4))
    await fake_engine.wait_for("GET /events")
    await fake_engine.wait_for_subscription()
    fake_engine.emit(died("somebody else"))
    fake_engine.emit({"Type": "container", "Action": "die"})
    fake_engine.emit(b"\n")
    fake_engine.emit(died("id"))
    assert (await container.wait()).exit_code == 4
    await cookie.aclose()


async def test_subscription_asks_for_the_past(
    driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    """The engine sends its head before it subscribes: what happens between is asked for."""
    await fake_engine.wait_for("GET /events")
    [request] = [r for r in fake_engine.requests if r.path.endswith("/events")]
    since = int(request.query["since"])
    assert since == 1795507200  # the fake engine's clock, not ours
    assert int(request.query["until"]) == since + RENEWAL
    assert fake_engine.seen.index("GET /_ping") < fake_engine.seen.index("GET /events")


@pytest.mark.parametrize(
    "listed",
    [[], [{"Id": "id", "State": "exited"}], [{"Id": "id", "State": "dead"}]],
    ids=["gone", "exited", "dead"],
)
async def test_renewal_finds_an_exit_without_event(
    driver: DockerDriver, fake_engine: FakeEngine, listed: list[dict[str, str]]
) -> None:
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()
    fake_engine.on("GET /containers/id/json", state(5))
    fake_engine.on("GET /containers/json", value(listed))
    fake_engine.end_subscriptions()
    assert (await container.wait()).exit_code == 5
    await cookie.aclose()


@pytest.mark.parametrize("status", ["created", "running", "paused"])
async def test_renewal_leaves_the_living_alone(
    driver: DockerDriver, fake_engine: FakeEngine, status: str
) -> None:
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()
    fake_engine.on("GET /containers/json", value([{"Id": "id", "State": status}]))
    lists = fake_engine.count("GET /containers/json")
    fake_engine.end_subscriptions()
    await fake_engine.wait_for("GET /containers/json", lists + 1)
    with trio.move_on_after(0.05) as scope:
        await container.wait()
    assert scope.cancelled_caught
    await cookie.aclose()


async def test_outage(driver: DockerDriver, fake_engine: FakeEngine, logs: Logs) -> None:
    """An exit while the engine can't be reached is found afterwards; one line is logged."""
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()

    async def unreachable(request: Request) -> Answer:
        return BREAK

    fake_engine.on("GET /_ping", unreachable)
    pings = fake_engine.count("GET /_ping")
    fake_engine.end_subscriptions()
    await fake_engine.wait_for("GET /_ping", pings + 2)
    fake_engine.on("GET /containers/json", value([]))
    fake_engine.on("GET /containers/id/json", error(404, "No such container"))
    fake_engine.on("GET /_ping", value("OK"))
    assert (await container.wait()).exit_code == 137
    assert len(logs.with_event("events lost")) == 1
    await cookie.aclose()


async def test_subscription_without_a_list_is_not_trusted(
    driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()
    answers = [error(500, "busy"), value([])]

    async def listing(request: Request) -> Answer:
        return await answers.pop(0)(request)

    fake_engine.on("GET /containers/json", listing)
    fake_engine.on("GET /containers/id/json", state(6))
    fake_engine.end_subscriptions()
    assert (await container.wait()).exit_code == 6
    assert not answers
    await cookie.aclose()


async def test_strange_events_break_nothing(
    driver: DockerDriver, fake_engine: FakeEngine, logs: Logs
) -> None:
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()
    fake_engine.on("GET /containers/json", value([{"Id": "id", "State": "running"}]))
    fake_engine.emit(b"<html>\n")
    await fake_engine.wait_for("GET /events", 2)
    await fake_engine.wait_for_subscription()
    fake_engine.on("GET /containers/id/json", error(500, "no"))
    fake_engine.emit(died("id", "7"))
    assert (await container.wait()).exit_code == 7  # all that is known is the event
    assert logs.with_event("events lost")
    await cookie.aclose()


async def test_unknown_end_is_an_error_and_asked_again(
    driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    cookie, container = await started(driver)
    await fake_engine.wait_for_subscription()
    fake_engine.on("GET /containers/id/json", error(500, "no"))
    fake_engine.emit(died("id", ""))
    with pytest.raises(EngineError, match="no"):
        await container.wait()
    fake_engine.on("GET /containers/id/json", state(8))
    assert (await container.wait()).exit_code == 8
    await cookie.aclose()


async def test_wait_during_the_removal(driver: DockerDriver, fake_engine: FakeEngine) -> None:
    cookie, container = await started(driver)
    fake_engine.on("GET /containers/id/json", state(0, running=True))
    await cookie.aclose()
    assert (await container.wait()).exit_code == 137


@pytest.mark.parametrize(
    ("code", "oom", "status"),
    [
        (0, False, "success"),
        (0, True, "success"),
        (137, True, "killed"),
        (137, False, "error"),
        (1, True, "error"),
        (143, False, "error"),
    ],
)
def test_results(code: int, oom: bool, status: str) -> None:
    result = result_of(code, out_of_memory=oom)
    assert isinstance(result, RunResult)
    assert (result.status, result.exit_code) == (status, code)
    assert (result.error is None) == (status == "success")
