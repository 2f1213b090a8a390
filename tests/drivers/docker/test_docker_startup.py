"""What opening a driver does: version, leaked containers, images from a file."""

from __future__ import annotations

import contextlib
import threading
import uuid
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
    EngineError,
    EngineOperation,
    EngineTooOld,
    EngineUnreachable,
    open_docker_driver,
)
from hostler.drivers.docker import engine as engine_module
from hostler.drivers.docker.driver import version_numbers
from hostler.errors import ConfigError, ServerBusy

from ...conftest import Logs
from .conftest import WAIT
from .fake_engine import FakeEngine, error, nothing, value
from .http_server import BREAK, Answer, Request, json_answer
from .leftovers import leave_container


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("17.10.0-ce", (17, 10, 0)),
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("1.0", (1, 0, 0)),
        ("v25.0.3", (25, 0, 3)),
    ],
)
def test_versions(version: str, numbers: tuple[int, int, int]) -> None:
    assert version_numbers(version) == numbers


async def test_version_check(fake_engine: FakeEngine, fake_environ: dict[str, str]) -> None:
    """Reference 07 §8, with the numbers turned round."""
    fake_engine.version = "17.10.0-ce"
    async with open_docker_driver(AgentConfig(), environ=fake_environ):
        pass
    fake_engine.version = "17.9.1"
    with pytest.raises(EngineTooOld, match=r"17\.9\.1 is too old, 17\.10\.0-ce is the minimum"):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            pass
    fake_engine.version = "dev"
    with pytest.raises(ConfigError, match="'dev'"):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            pass


async def test_another_engine_is_judged_by_the_api_that_it_speaks(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    fake_engine.name, fake_engine.version = "Podman Engine", "5.4.2"
    async with open_docker_driver(AgentConfig(), environ=fake_environ):
        pass
    fake_engine.api_version = "1.32"
    text = r"Podman Engine 5\.4\.2 speaks version 1\.32 of Docker's API, 1\.33 is the minimum"
    with pytest.raises(EngineTooOld, match=text):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            pass


@pytest.mark.docker
@pytest.mark.parametrize(("minimum", "fine"), [("1.0.0", True), ("9999.0.0", False)])
async def test_version_check_of_a_real_engine(docker_host: str, minimum: str, fine: bool) -> None:
    config = AgentConfig(min_docker_version=minimum)
    environ = {"DOCKER_HOST": docker_host}
    if fine:
        async with open_docker_driver(config, environ=environ):
            pass
        return
    with pytest.raises(EngineTooOld):
        async with open_docker_driver(config, environ=environ):
            pass


async def test_no_engine(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/none.sock"
    with pytest.raises(EngineUnreachable, match=r"none\.sock"):
        async with open_docker_driver(AgentConfig(), environ={"DOCKER_HOST": host}):
            pass


async def test_cancelled_while_it_connects_it_leaves_no_thread(
    fake_engine: FakeEngine, fake_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "THREAD_GRACE", WAIT)
    asked, over, connect = trio.Event(), threading.Event(), engine_module._connect

    async def answer_late(request: Request) -> Answer:
        asked.set()
        await trio.testing.wait_all_tasks_blocked()
        return BREAK

    def noted(*args: Any) -> Any:
        try:
            return connect(*args)
        finally:
            over.set()

    async def open_it() -> None:
        with scope:
            async with open_docker_driver(AgentConfig(), environ=fake_environ):
                pytest.fail("opened")
        assert over.is_set()

    monkeypatch.setattr(engine_module, "_connect", noted)
    fake_engine.on("GET /version", answer_late)
    scope = trio.CancelScope()
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            await asked.wait()
            scope.cancel()


async def test_a_start_waits_for_one_answer_of_the_engine(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """Without a pool, and where the driver is in no container itself."""
    config = AgentConfig(container_label_tag="tag", experimental_prefork_pool_size=0)
    async with open_docker_driver(config, environ=fake_environ):
        asked = [line for line in fake_engine.seen if not line.startswith("GET /containers/")]
        assert asked == ["GET /version"]


async def test_something_else_than_an_engine_is_refused(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    fake_engine.on("GET /version", value({"Version": "1"}))
    with pytest.raises(EngineUnreachable, match="ApiVersion"):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            pass


async def test_error_of_the_block_comes_out_as_it_is(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_docker_driver(AgentConfig(), environ=fake_environ):
            raise ZeroDivisionError


# --- leaked containers ---------------------------------------------------------------------


@pytest.mark.docker
async def test_leaked_containers_are_removed(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str
) -> None:
    """Reference 07 §8."""
    other_tag = f"hostler-test-{uuid.uuid4().hex}"
    ours = leave_container(engine, fnt, tag, "me")
    other_program = leave_container(engine, fnt, other_tag, "before")
    stopped = leave_container(engine, fnt, tag, "before")
    running = leave_container(engine, fnt, tag, "long before")
    paused = leave_container(engine, fnt, tag, "before")
    try:
        for container in (ours, other_program, running, paused):
            engine.start(container)
        engine.pause(paused)
        config = AgentConfig(container_label_tag=tag, experimental_prefork_pool_size=0)
        environ = {"DOCKER_HOST": docker_host}
        async with open_docker_driver(config, environ=environ, instance_id="me"):
            with trio.fail_after(WAIT):
                for name in (stopped, running, paused):
                    await trio.to_thread.run_sync(_wait_until_removed, engine, name)
        assert _exists(engine, ours)
        assert _exists(engine, other_program)
        assert not any(_exists(engine, name) for name in (stopped, running, paused))
    finally:
        for name in (ours, other_program, stopped, running, paused):
            if _exists(engine, name):
                engine.remove_container(name, force=True)


def _wait_until_removed(engine: docker.APIClient, name: str) -> None:
    with contextlib.suppress(docker.errors.NotFound):
        engine.wait(name, condition="removed", timeout=WAIT)


def _exists(engine: docker.APIClient, name: str) -> bool:
    return bool(engine.containers(all=True, filters={"id": name}))


LEAKED = [
    {"Id": "one", "Names": ["/one"], "State": "exited", "Labels": {"fn-agent-instance": "x"}},
    {"Id": "two", "Names": ["/two"], "State": "running", "Labels": None},
    {"Id": "own", "Names": ["/own"], "State": "running", "Labels": {"fn-agent-instance": "me"}},
]


async def test_what_a_hung_engine_makes_after_its_driver_has_closed_goes_with_the_next_start(
    fake_engine: FakeEngine, fake_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never started, and nobody has its id. Of a runner with a tag of its own."""
    monkeypatch.setattr("hostler.drivers.docker.containers.LATE_CREATION", 0)
    fake_engine.on("GET /images/img/json", value({"Id": "sha256:1", "Config": {}}))
    fake_engine.on("POST /containers/create", fake_engine.hang)
    fake_engine.on("DELETE /containers/ctr", error(404, "No such container"))
    config, limits = AgentConfig(container_label_tag="own"), {EngineOperation.CREATE: 0.1}
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ, limits=limits) as driver:
            cookie = await driver.create_cookie(ContainerTask(id="ctr", image="img"))
            await cookie.validate_image()
            with pytest.raises(ServerBusy):
                await cookie.create_container()
            await cookie.aclose()
    (creation,) = (each for each in fake_engine.requests if each.path.endswith("/create"))
    labels = msgspec.json.decode(creation.body)["Labels"]

    async def listed(request: Request) -> Answer:
        filters = msgspec.json.decode(request.query.get("filters", "{}"))
        assert request.query["all"] == "1"
        fits = filters == {"label": ["fn-agent-classifier=own"]}
        row = {"Id": "late", "State": "created", "Labels": labels}
        return json_answer([row] if fits else [])

    fake_engine.on(r"GET /containers/json\?fn-agent-classifier", listed)
    fake_engine.on("DELETE /containers/late", nothing)
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ) as driver:
            await driver.wait_clean()
            assert fake_engine.count("DELETE /containers/late") == 1
    fake_engine.release()


async def test_listing_is_tried_until_it_succeeds(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    fake_engine.on("DELETE /containers/one", error(500, "device busy"))
    fake_engine.on("DELETE /containers/two", nothing)
    answers = [error(500, "first"), error(500, "second"), value(LEAKED)]

    async def listing(request: Request) -> Answer:
        return await answers.pop(0)(request)

    fake_engine.on(r"GET /containers/json\?fn-agent-classifier", listing)
    config = AgentConfig(container_label_tag="t")
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ, instance_id="me"):
            await fake_engine.wait_for("DELETE /containers/two")
            await fake_engine.wait_for("DELETE /containers/one")
            while not logs.with_event("leaked container not removed"):
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(logs.with_event("leaked containers not listed")) == 2
    assert fake_engine.count("DELETE .*own.*") == 0
    filters = [request.query.get("filters", "") for request in fake_engine.requests]
    assert sum("fn-agent-classifier=t" in each for each in filters) == 3


async def test_an_engine_that_removes_slowly_does_not_hold_the_start_up(
    fake_engine: FakeEngine, fake_environ: dict[str, str], logs: Logs
) -> None:
    """The removal goes on behind a driver that is in use, two at a time, and can be waited for."""
    go = trio.Event()

    async def slow(request: Request) -> Answer:
        await go.wait()
        return await nothing(request)

    leaked = [{"Id": f"left{number}", "Labels": {}} for number in range(5)]
    fake_engine.on(r"GET /containers/json\?fn-agent-classifier", value(leaked))
    fake_engine.on("DELETE /containers/left.*", slow)
    config = AgentConfig(container_label_tag="t")
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ, instance_id="me") as driver:
            await fake_engine.wait_for("DELETE /containers/left.*")
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert fake_engine.count("DELETE .*left.*") == 2
            with trio.move_on_after(0.1) as scope:
                await driver.wait_clean()
            assert scope.cancelled_caught
            go.set()
            await driver.wait_clean()
            assert len(logs.with_event("leaked container removed")) == 5


async def test_a_container_that_was_still_being_made_for_a_killed_runner_is_removed(
    fake_engine: FakeEngine, fake_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine goes on with a creation whose client is gone, and lists what comes of it later."""
    monkeypatch.setattr("hostler.drivers.docker.driver.SECOND_LOOK", 0.01)
    answers = [value([]), value([{"Id": "late", "Labels": {}}])]

    async def listing(request: Request) -> Answer:
        return await answers.pop(0)(request)

    fake_engine.on(r"GET /containers/json\?fn-agent-classifier", listing)
    fake_engine.on("DELETE /containers/late", nothing)
    config = AgentConfig(container_label_tag="t", experimental_prefork_pool_size=0)
    with trio.fail_after(WAIT):
        async with open_docker_driver(config, environ=fake_environ, instance_id="me"):
            await fake_engine.wait_for("DELETE /containers/late")
    assert answers == []


async def test_without_a_tag_and_a_pool_only_name_spaces_of_others_are_looked_for(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    """Also by a runner that has none itself: those of a dead one are gone with the next."""
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        name = driver._shared.around.pool_labels()["fn-agent-classifier"]
        assert driver._shared.around.labels() == {}
        assert driver.statistics().prefork.size == 0
        with trio.fail_after(WAIT):
            await fake_engine.wait_for(r"GET /containers/json\?hostler-home")
            await fake_engine.wait_for(r"GET /containers/json\?fn-agent-classifier")
    filters = "".join(request.query.get("filters", "") for request in fake_engine.requests)
    assert filters.count("fn-agent-classifier=") == filters.count(f"fn-agent-classifier={name}")


# --- images from a file --------------------------------------------------------------------


@pytest.mark.docker
async def test_load_file(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str, tmp_path: Path
) -> None:
    image = f"hostler-test/loaded:{tag}"
    engine.tag(fnt, "hostler-test/loaded", tag)
    archive = tmp_path / "images.tar"
    with archive.open("wb") as out:
        for chunk in engine.get_image(image):
            out.write(chunk)
    engine.remove_image(image)
    config = AgentConfig(docker_load_file=str(archive))
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}):
        assert engine.images(image)
    engine.remove_image(image)


@pytest.mark.docker
async def test_bad_load_file(docker_host: str, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(b"no archive at all" * 100)
    config = AgentConfig(docker_load_file=str(archive))
    with pytest.raises(EngineError, match="load images"):
        async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}):
            pass


async def test_missing_load_file(fake_engine: FakeEngine, fake_environ: dict[str, str]) -> None:
    config = AgentConfig(docker_load_file="/nowhere/images.tar")
    with pytest.raises(ConfigError, match=r"FN_DOCKER_LOAD_FILE.*/nowhere/images\.tar"):
        async with open_docker_driver(config, environ=fake_environ):
            pass


async def test_load_that_breaks_off(
    fake_engine: FakeEngine, fake_environ: dict[str, str], tmp_path: Path
) -> None:
    async def break_off(request: Request) -> Answer:
        return Answer(200, b'{"stream":"Loading"}\r\n', complete=False)

    fake_engine.on("POST /images/load", break_off)
    (tmp_path / "images.tar").write_bytes(b"data")
    config = AgentConfig(docker_load_file=str(tmp_path / "images.tar"))
    with pytest.raises(EngineUnreachable):
        async with open_docker_driver(config, environ=fake_environ):
            pass
    [load] = [r for r in fake_engine.requests if r.path.endswith("/images/load")]
    assert load.body == b"data"
