"""Pulls by a real engine from a real registry (`docker-registry`)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import trio
import trio.testing
import trustme
from prometheus_client import CollectorRegistry

from hostler.abc import ContainerTask, RunResult
from hostler.config import AgentConfig
from hostler.drivers.docker import (
    Backoff,
    DockerDriver,
    DockerMetrics,
    open_docker_driver,
    transient_trouble,
)
from hostler.errors import ImagePullFailed

from ...conftest import Logs
from ...functions.build import docker_image
from .conftest import WAIT
from .fake_registry import open_fake_registry, refusal
from .http_server import BREAK, Answer
from .real_registry import PASSWORD, USER, Registry, open_proxy, open_registry

pytestmark = pytest.mark.docker

QUICK = Backoff(max_retries=500, interval_msec=1, max_delay_msec=20, min_delay_msec=10)


@pytest.fixture
def image(engine: docker.APIClient, docker_host: str) -> Iterator[Callable[..., str]]:
    """Pushes a new image of the test function and removes it here: ``image(address, ...)``."""
    local = docker_image(docker_host)
    names: list[str] = []

    def push(address: str, **auth: str) -> str:
        repository = f"{address}/fn-{uuid.uuid4().hex[:8]}"
        name = f"{repository}:v1"
        names.append(name)
        engine.tag(local, repository, "v1")
        answer = engine.push(repository, "v1", auth_config=auth or None, stream=False)
        assert "error" not in answer, answer
        engine.remove_image(name)
        return name

    yield push
    for found in engine.images():
        for name in found["RepoTags"] or []:
            if name.split("/")[0] in {name.split("/")[0] for name in names}:
                engine.remove_image(name)


@asynccontextmanager
async def open_driver(
    docker_host: str, metrics: DockerMetrics | None = None, **fields: Any
) -> AsyncIterator[DockerDriver]:
    fields.setdefault("image_pull_retries", 0)
    environ = {"DOCKER_HOST": docker_host, "PATH": os.environ["PATH"]}
    async with open_docker_driver(
        AgentConfig(experimental_prefork_pool_size=0, **fields), environ=environ, metrics=metrics
    ) as driver:
        yield driver


async def pull(driver: DockerDriver, image: str, *, limit: float = WAIT, **fields: Any) -> None:
    """Pull, and see that the image is there."""
    cookie = await driver.create_cookie(ContainerTask(id="pull", image=image, **fields))
    try:
        with trio.fail_after(limit):
            assert await cookie.validate_image() is True
            await cookie.pull_image()
            assert await cookie.validate_image() is False
    finally:
        await cookie.aclose()


def auths(address: str, user: str, password: str) -> str:
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {address: {"auth": text}}})


async def in_thread(push: Callable[..., str], registry: Registry, **auth: str) -> str:
    def call() -> str:
        return push(registry.address, **auth)

    return await trio.to_thread.run_sync(call)


async def test_anonymous_pull_and_run(
    docker_host: str, image: Callable[..., str], tmp_path: Path, tag: str
) -> None:
    async with open_registry(tmp_path) as registry, open_driver(docker_host) as driver:
        name = await in_thread(image, registry)
        task = ContainerTask(id=tag, image=name, env={"FNT_START": "exit=0"}, disable_net=True)
        cookie = await driver.create_cookie(task)
        try:
            with trio.fail_after(WAIT):
                assert await cookie.validate_image() is True
                await cookie.pull_image()
                assert await cookie.validate_image() is False
                await cookie.create_container()
                assert await (await cookie.run()).wait() == RunResult("success")
        finally:
            await cookie.aclose()


async def test_missing_image(docker_host: str, image: Callable[..., str], tmp_path: Path) -> None:
    async with open_registry(tmp_path) as registry, open_driver(docker_host) as driver:
        name = await in_thread(image, registry)
        for missing in (name + "x", f"{registry.address}/none:v1"):
            with pytest.raises(ImagePullFailed, match=r"not found|manifest unknown") as caught:
                await pull(driver, missing)
            assert (caught.value.code, caught.value.blame) == (404, "user")


async def test_basic_auth(docker_host: str, image: Callable[..., str], tmp_path: Path) -> None:
    async with open_registry(tmp_path, basic_auth=True) as registry:
        name = await in_thread(image, registry, username=USER, password=PASSWORD)
        right = auths(registry.address, USER, PASSWORD)
        async with open_driver(docker_host, docker_auth=right) as driver:
            await pull(driver, name)


@pytest.mark.parametrize("password", ["wrong", None, "for another host"])
async def test_wrong_password(
    docker_host: str,
    image: Callable[..., str],
    tmp_path: Path,
    logs: Logs,
    password: str | None,
) -> None:
    """Nor are credentials sent to a host that they are not for; and it is not tried again."""
    async with open_registry(tmp_path, basic_auth=True) as registry:
        name = await in_thread(image, registry, username=USER, password=PASSWORD)
        address, secret = registry.address, password or ""
        if password == "for another host":
            address, secret = registry.host, PASSWORD
        auth = auths(address, USER, secret) if password else ""
        async with open_driver(docker_host, docker_auth=auth, image_pull_retries=5) as driver:
            with pytest.raises(ImagePullFailed, match=r"no basic auth|unauthorized|denied") as e:
                await pull(driver, name)
        assert not logs.with_event("tried again")
        assert not secret or secret not in f"{e.value} {list(logs)}"


async def test_credentials_of_a_helper(
    docker_host: str,
    image: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "docker-credential-hosttest"
    answer = json.dumps({"ServerURL": "", "Username": USER, "Secret": PASSWORD})
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    async with open_registry(tmp_path, basic_auth=True) as registry:
        name = await in_thread(image, registry, username=USER, password=PASSWORD)
        auth = json.dumps({"credHelpers": {registry.address: "hosttest"}})
        async with open_driver(docker_host, docker_auth=auth) as driver:
            await pull(driver, name)


async def test_failing_helper(docker_host: str, logs: Logs) -> None:
    auth = json.dumps({"credsStore": "there-is-none"})
    async with open_driver(docker_host, docker_auth=auth) as driver:
        with pytest.raises(ImagePullFailed, match="no registry credentials") as caught:
            await pull(driver, "127.0.0.1:1/fn:v1")
    assert (caught.value.code, len(logs.with_event("no credentials"))) == (502, 1)


async def test_tls_on_loopback(docker_host: str, image: Callable[..., str], tmp_path: Path) -> None:
    """Engines take any certificate there."""
    async with (
        open_registry(tmp_path, authority=trustme.CA()) as registry,
        open_driver(docker_host) as driver,
    ):
        await pull(driver, await in_thread(image, registry))


async def test_tls_with_an_authority_of_our_own(
    docker_host: str, image: Callable[..., str], tmp_path: Path, logs: Logs
) -> None:
    """Refused at once until the engine's machine knows the authority. Over IPv6, because engines
    take any certificate from 127.0.0.0/8."""
    authority = trustme.CA()
    async with (
        open_registry(tmp_path, host="[::1]", authority=authority) as registry,
        open_driver(docker_host, image_pull_retries=5) as driver,
    ):
        with pytest.raises(ImagePullFailed, match="x509: certificate signed by unknown") as caught:
            await pull(driver, f"{registry.address}/fn:v1")
        assert caught.value.code == 502
        assert not logs.with_event("tried again")
        with trusted_by_the_engine(registry.address, authority):
            await pull(driver, await in_thread(image, registry))


@contextmanager
def trusted_by_the_engine(address: str, authority: trustme.CA) -> Iterator[None]:
    """As docs/reference/images.md says it. Of all addresses, only this test's are concerned."""
    folder = Path("/etc/docker/certs.d", address)
    folder.mkdir(parents=True)
    try:
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        yield
    finally:
        shutil.rmtree(folder)


async def test_registry_down_and_back(
    docker_host: str, image: Callable[..., str], tmp_path: Path, logs: Logs
) -> None:
    async with open_registry(tmp_path) as registry, open_driver(docker_host) as driver:
        name = await in_thread(image, registry)
        await registry.stop()
        with pytest.raises(ImagePullFailed, match="connection refused") as caught:
            await pull(driver, name)  # no retries
        assert caught.value.code == 502
        down = trio.Event()

        def checker(error: Exception) -> tuple[bool, str]:
            down.set()
            return transient_trouble(error)

        driver.set_pull_retry_policy(QUICK, checker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, driver, name)
            await down.wait()
            await registry.start()
        assert {entry["reason"] for entry in logs.with_event("tried again")} == {"connection"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusal(429, "TOOMANYREQUESTS", "slow down"), "too many requests"),
        (Answer(429), "too many requests"),
        (refusal(503, "UNAVAILABLE", "later"), "registry error"),
        (Answer(502, b"<html>bad gateway"), "registry error"),
        (BREAK, "connection"),
    ],
    ids=["429", "bare 429", "503", "502", "break"],
)
async def test_trouble_that_passes(
    docker_host: str,
    image: Callable[..., str],
    tmp_path: Path,
    logs: Logs,
    answer: Answer,
    reason: str,
) -> None:
    settings: dict[str, Any] = {"image_pull_retries": 10, "image_pull_retry_interval_msecs": 1}
    async with open_registry(tmp_path) as registry, open_proxy(registry.address) as proxy:
        name = await in_thread(image, registry)
        through = name.replace(registry.address, proxy.address)
        proxy.refusals = [answer] * 4
        samples = CollectorRegistry()
        metrics = DockerMetrics(samples)
        async with open_driver(docker_host, metrics, **settings) as driver:
            await pull(driver, through)
        await remove(docker_host, through)
    told = logs.with_event("tried again")
    assert {entry["reason"] for entry in told} == {reason}
    labels = {"api_name": "docker_pull_image", "api_status": reason}
    assert samples.get_sample_value("fn_docker_api_retries", labels) == len(told)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(200, b"{}", {"Content-Type": "application/json"}),
        Answer(200),
        Answer(404, b"nothing here"),
        Answer(302, b"", {"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["html", "json", "empty", "404", "redirect"],
)
async def test_garbage(docker_host: str, logs: Logs, answer: Answer) -> None:
    settings: dict[str, Any] = {"image_pull_retry_interval_msecs": 1}
    async with open_fake_registry() as registry, open_driver(docker_host, **settings) as driver:
        registry.fail = [answer] * 50
        with pytest.raises(ImagePullFailed, match="Failed to pull image") as caught:
            await pull(driver, f"{registry.host}/fn:v1")
    assert caught.value.code in (404, 502)


async def test_each_waiter_has_its_own_deadline(
    docker_host: str, image: Callable[..., str], tmp_path: Path
) -> None:
    """Weakness 04/5: one transfer for ten; the one that asked first gives up, nine go on."""
    done: list[str] = []

    async def wait(name: str, driver: DockerDriver) -> None:
        await pull(driver, name)
        done.append(name)

    async with (
        open_registry(tmp_path) as registry,
        open_proxy(registry.address) as proxy,
        open_driver(docker_host) as driver,
    ):
        name = await in_thread(image, registry)
        through = name.replace(registry.address, proxy.address)
        proxy.gate = trio.Event()
        gave_up = trio.Event()

        async def give_up() -> None:
            with pytest.raises(trio.TooSlowError):
                await pull(driver, through, limit=0.5)
            gave_up.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await proxy.arrived.wait()
            for _ in range(9):
                nursery.start_soon(wait, through, driver)
            await gave_up.wait()
            assert done == []
            proxy.gate.set()
        assert len(done) == 9
        # One transfer asks once for the tag, then for what it stands for.
        assert len([line for line in proxy.manifests if line.endswith("/v1")]) <= 2
        await remove(docker_host, through)


async def test_a_token_is_for_one_call_and_never_told(
    docker_host: str, tmp_path: Path, logs: Logs
) -> None:
    async with open_proxy("127.0.0.1:1") as proxy, open_driver(docker_host) as driver:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{proxy.address}/t",service="r"'}

        async def asks_for_a_token(request: Any) -> Answer:
            proxy.authorizations.add(request.headers.get("authorization", ""))
            return Answer(401, b"", challenge)

        proxy.respond = asks_for_a_token
        for token in ("t0ken-one", "", "t0ken-two"):
            proxy.authorizations.clear()
            with pytest.raises(ImagePullFailed) as caught:
                await pull(driver, f"{proxy.address}/fn:v1", registry_token=token)
            sent = proxy.authorizations - {""}
            assert sent == ({f"Bearer {token}"} if token else set())
            assert "t0ken" not in f"{caught.value} {caught.value.__cause__} {list(logs)}"


async def test_a_call_gives_the_credentials_for_its_pull(
    docker_host: str, tmp_path: Path, logs: Logs
) -> None:
    asked: list[str] = []

    async def credentials(image: str) -> dict[str, str] | None:
        asked.append(image)
        if len(asked) == 3:
            raise OSError("the vault is closed")
        return {"registrytoken": "0wn-token"} if len(asked) == 1 else None

    async with open_proxy("127.0.0.1:1") as proxy, open_driver(docker_host) as driver:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{proxy.address}/t",service="r"'}

        async def asks_for_a_token(request: Any) -> Answer:
            proxy.authorizations.add(request.headers.get("authorization", ""))
            return Answer(401, b"", challenge)

        proxy.respond = asks_for_a_token
        image = f"{proxy.address}/fn:v1"
        for sent in ({"Bearer 0wn-token"}, set()):
            proxy.authorizations.clear()
            with pytest.raises(ImagePullFailed):
                await pull(driver, image, docker_auth=credentials)
            assert proxy.authorizations - {""} == sent
        proxy.authorizations.clear()
        with pytest.raises(ImagePullFailed, match="no registry credentials"):
            await pull(driver, image, docker_auth=credentials)
        assert asked == [image] * 3
        assert proxy.authorizations == set()
    logs.expect_error("credentials of a call failed")


async def remove(docker_host: str, name: str) -> None:
    def request() -> None:
        client = docker.APIClient(base_url=docker_host, version="auto")
        client.remove_image(name)
        client.close()

    await trio.to_thread.run_sync(request)
