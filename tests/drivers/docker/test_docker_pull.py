"""Pulls: shared transfers, errors, credentials and retries (reference 07 §5)."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import docker
import pytest
import trio
import trio.testing

from hostler.abc import ContainerTask
from hostler.config import AgentConfig
from hostler.drivers.docker import Backoff, DockerDriver, open_docker_driver
from hostler.drivers.docker.engine import (
    READ_AHEAD,
    EngineOperation,
    JSONLines,
    open_engine,
    open_json_lines,
)
from hostler.errors import ImagePullFailed

from ...conftest import Logs
from .conftest import WAIT
from .fake_engine import FakeEngine, error
from .fake_registry import FakeRegistry, open_fake_registry, refusal
from .http_server import Answer, Request

QUICK = Backoff(max_retries=3, interval_msec=1, max_delay_msec=2)
NO_RETRIES = AgentConfig(image_pull_retries=0)


@pytest.fixture
async def registry(engine: docker.APIClient) -> AsyncIterator[FakeRegistry]:
    async with open_fake_registry() as registry:
        yield registry
        for image in engine.images():
            for name in image["RepoTags"] or []:
                if name.startswith(registry.host):
                    engine.remove_image(name)


@pytest.fixture
async def driver(docker_host: str) -> AsyncIterator[DockerDriver]:
    environ = {"DOCKER_HOST": docker_host}
    async with open_docker_driver(NO_RETRIES, environ=environ) as driver:
        yield driver


async def pull(driver: DockerDriver, image: str, **fields: Any) -> None:
    cookie = await driver.create_cookie(ContainerTask(id="pull", image=image, **fields))
    try:
        with trio.fail_after(WAIT):
            await cookie.pull_image()
    finally:
        await cookie.aclose()


async def pull_all(driver: DockerDriver, images: Sequence[str]) -> list[ImagePullFailed]:
    """Pull at the same time; the errors."""
    errors: list[ImagePullFailed] = []

    async def one(image: str) -> None:
        try:
            await pull(driver, image)
        except ImagePullFailed as failed:
            errors.append(failed)

    async with trio.open_nursery() as nursery:
        for image in images:
            nursery.start_soon(one, image)
    return errors


@pytest.mark.docker
async def test_pull_makes_the_image_valid(driver: DockerDriver, registry: FakeRegistry) -> None:
    cookie = await driver.create_cookie(ContainerTask(id="p", image=f"{registry.host}/some/fn:v1"))
    assert await cookie.validate_image() is True
    with trio.fail_after(WAIT):
        await cookie.pull_image()
    assert await cookie.validate_image() is False
    await cookie.pull_image()  # nothing to do any more
    assert registry.manifests() == ["some/fn:v1"]
    await cookie.aclose()


@pytest.mark.docker
async def test_two_tags_ten_pulls_each(driver: DockerDriver, registry: FakeRegistry) -> None:
    """Reference 07 §5."""
    images = [f"{registry.host}/fn:v{tag}" for tag in (1, 2)] * 10
    assert await pull_all(driver, images) == []
    assert sorted(registry.manifests()) == ["fn:v1", "fn:v2"]


@pytest.mark.docker
async def test_ten_failing_pulls(driver: DockerDriver, registry: FakeRegistry) -> None:
    """Reference 07 §5."""
    registry.gate = trio.Event()
    registry.fail = [refusal(403, "DENIED", "not for you")] * 20
    image = f"{registry.host}/fn:v1"
    errors: list[ImagePullFailed] = []

    async def all_ten() -> None:
        errors.extend(await pull_all(driver, [image] * 10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(all_ten)
        await trio.testing.wait_all_tasks_blocked()
        registry.gate.set()
    assert len(errors) == len(set(map(id, errors))) == 10
    assert {(e.code, e.blame) for e in errors} == {(404, "user")}
    assert all(e.message.startswith(f"Failed to pull image '{image}': ") for e in errors)
    assert registry.manifests() == ["fn:v1"]


@pytest.mark.docker
async def test_a_follower_survives_the_first_that_asked(
    driver: DockerDriver, registry: FakeRegistry
) -> None:
    """Weakness 04/5: each waiter has its own time limit."""
    registry.gate = trio.Event()
    image = f"{registry.host}/fn:v1"
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:

            async def follow() -> None:
                await registry.arrived.wait()
                nursery.start_soon(pull, driver, image)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
                registry.gate.set()

            nursery.start_soon(follow)
            await pull(driver, image)
        assert first.cancelled_caught
    assert registry.manifests() == ["fn:v1"]


@pytest.mark.docker
async def test_registry_token_of_the_task(driver: DockerDriver, registry: FakeRegistry) -> None:
    registry.challenge = f'Bearer realm="http://{registry.host}/token",service="registry"'
    await pull(driver, f"{registry.host}/fn:v1", registry_token="t0ken")
    assert registry.authorizations() == {"Bearer t0ken"}


@pytest.mark.docker
async def test_unreachable_registry(driver: DockerDriver) -> None:
    with pytest.raises(
        ImagePullFailed, match=r"Failed to pull image '127\.0\.0\.1:1/fn:v1': "
    ) as e:
        await pull(driver, "127.0.0.1:1/fn:v1")
    assert e.value.code == 502


@pytest.mark.docker
async def test_pull_is_tried_again(
    driver: DockerDriver, registry: FakeRegistry, logs: Logs
) -> None:
    """Reference 07 §5: 429 at first, a checker that accepts it, enough retries."""
    driver.set_pull_retry_policy(QUICK, lambda error: ("toomany" in str(error).lower(), "busy"))
    # The engine asks with HEAD, then with GET, then without TLS again.
    registry.fail = [refusal(429, "TOOMANYREQUESTS", "slow down")] * 4
    await pull(driver, f"{registry.host}/fn:v1")
    assert logs.with_event("pull is tried again")[0]["reason"] == "busy"


# --- on a fake engine ----------------------------------------------------------------------


@pytest.fixture
async def fake_driver(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> AsyncIterator[DockerDriver]:
    auth = base64.b64encode(b"user:pass").decode()
    config = AgentConfig(docker_auth=json.dumps({"a.b:5000": {"auth": auth}}), image_pull_retries=0)
    async with open_docker_driver(config, environ=fake_environ) as driver:
        yield driver
        fake_engine.release()


def lines(*messages: dict[str, Any], complete: bool = True) -> Answer:
    body = b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
    return Answer(200, body, complete=complete)


def answering(answer: Answer) -> Any:
    async def handler(request: Request) -> Answer:
        return answer

    return handler


def sent_auths(engine: FakeEngine) -> list[dict[str, str]]:
    headers = [r.headers["x-registry-auth"] for r in engine.requests if "fromImage" in r.query]
    return [json.loads(base64.urlsafe_b64decode(header)) for header in headers]


async def test_what_is_asked_of_the_engine(
    fake_driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    fake_engine.on("POST /images/create", answering(lines({"status": "Done"})))
    await pull(fake_driver, "a.b:5000/x/fn:v1")
    await pull(fake_driver, "a.b/x/fn")
    await pull(fake_driver, "a.b:5000/fn", registry_token="t")
    queries = [r.query for r in fake_engine.requests if "fromImage" in r.query]
    assert queries == [
        {"fromImage": "a.b:5000/x/fn", "tag": "v1"},
        {"fromImage": "a.b/x/fn", "tag": "latest"},
        {"fromImage": "a.b:5000/fn", "tag": "latest"},
    ]
    assert sent_auths(fake_engine) == [
        {"username": "user", "password": "pass", "serveraddress": "a.b:5000"},
        {},
        {"registrytoken": "t"},
    ]


async def test_different_credentials_are_different_transfers(
    fake_driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    fake_engine.on("POST /images/create", answering(lines({"status": "Done"})))
    async with trio.open_nursery() as nursery:
        for token in ("one", "two"):
            for _ in range(3):
                cookie = await fake_driver.create_cookie(
                    ContainerTask(id="p", image="img", registry_token=token)
                )
                nursery.start_soon(cookie.pull_image)
    assert sorted(auth["registrytoken"] for auth in sent_auths(fake_engine)) == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "code"), [(400, 400), (401, 401), (404, 404), (429, 429), (500, 502), (503, 502)]
)
async def test_codes(
    fake_driver: DockerDriver, fake_engine: FakeEngine, status: int, code: int
) -> None:
    fake_engine.on("POST /images/create", error(status, "no such thing"))
    with pytest.raises(ImagePullFailed) as caught:
        await pull(fake_driver, "img:v1")
    assert caught.value.code == code
    assert caught.value.message == "Failed to pull image 'img:v1': no such thing"


async def test_error_after_the_head(fake_driver: DockerDriver, fake_engine: FakeEngine) -> None:
    failed = lines({"status": "x"}, {"errorDetail": {"message": "disk full"}, "error": "disk full"})
    fake_engine.on("POST /images/create", answering(failed))
    with pytest.raises(ImagePullFailed, match="disk full") as caught:
        await pull(fake_driver, "img")
    assert caught.value.code == 502


@pytest.mark.parametrize(
    "answer",
    [lines({"status": "half"}, complete=False), Answer(200, b"<html>\n")],
    ids=["broken", "no JSON"],
)
async def test_broken_stream_is_no_success(
    fake_driver: DockerDriver, fake_engine: FakeEngine, answer: Answer
) -> None:
    fake_engine.on("POST /images/create", answering(answer))
    with pytest.raises(ImagePullFailed):
        await pull(fake_driver, "img")


async def test_cancelled_pull_leaves_the_engine(
    fake_driver: DockerDriver, fake_engine: FakeEngine
) -> None:
    """The last waiter's cancellation closes the connection, upon which an engine stops."""
    send, more = trio.open_memory_channel[bytes](1)
    fake_engine.on("POST /images/create", answering(Answer(200, b'{"status":"x"}\n', more=more)))
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, fake_driver, "img")
            await fake_engine.wait_for("POST /images/create")
            await send.send(b'{"status":"y"}\n')
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        while True:  # until the fake engine's end of the channel is dropped
            try:
                send.send_nowait(b'{"status":"z"}\n')
            except (trio.BrokenResourceError, trio.WouldBlock):
                break
            await trio.testing.wait_all_tasks_blocked(0.01)
        while fake_driver.statistics().threads > 1:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_retries_end(fake_driver: DockerDriver, fake_engine: FakeEngine) -> None:
    fake_engine.on("POST /images/create", error(500, "toomanyrequests"))
    fake_driver.set_pull_retry_policy(QUICK, lambda error: (True, "always"))
    with pytest.raises(ImagePullFailed, match="toomanyrequests"):
        await pull(fake_driver, "img")
    assert fake_engine.count("POST /images/create") == 4


async def test_checker_that_refuses(fake_driver: DockerDriver, fake_engine: FakeEngine) -> None:
    fake_engine.on("POST /images/create", error(429, "toomanyrequests"))
    fake_driver.set_pull_retry_policy(QUICK, lambda error: (False, ""))
    with pytest.raises(ImagePullFailed):
        await pull(fake_driver, "img")
    assert fake_engine.count("POST /images/create") == 1


async def test_a_slow_reader_gets_all_and_one_that_leaves_frees_its_thread(
    fake_engine: FakeEngine, fake_environ: dict[str, str]
) -> None:
    many = 20 * READ_AHEAD
    answer = lines(*({"status": str(number)} for number in range(many)))
    fake_engine.on("POST /images/create", answering(answer))
    engine = await open_engine(fake_environ)

    def request(client: Any) -> JSONLines:
        return open_json_lines(client, "POST", "/images/create", silence=60, params={})

    with trio.fail_after(60):
        async with engine.stream(EngineOperation.PULL, request) as messages:
            await trio.testing.wait_all_tasks_blocked(
                0.02
            )  # the thread has read as far ahead as it may
            read = [message["status"] async for message in messages]
        assert read == [str(number) for number in range(many)]
        async with engine.stream(EngineOperation.PULL, request) as messages:
            await anext(messages)
        while engine.threads():  # noqa: ASYNC110  (a real thread, a deadline around)
            await trio.sleep(0.005)
        await engine.aclose()
