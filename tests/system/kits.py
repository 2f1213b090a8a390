"""What a function made with any of Fn's kits is seen to do, on one node with the API and Docker.

The function is tests/functions/hello_fdk, or hello_node: they are asked and answer alike.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import docker
import httpx
import trio

from tests.cli._process import NodeProcess, ends, open_node, run

from .containers import containers, engine_of, of_functions
from .nodes import errors_of

SECONDS = 60
"""After which whatever a client waits for has failed."""


@attrs.frozen
class Kit:
    """One of Fn's function kits."""

    language: str
    image: Callable[[str], str]
    """Builds the image of the function on the engine at an address; returns its name."""
    version: str
    """How ``Fn-Fdk-Version`` begins."""
    directory: Mapping[str, str]
    """Files by path, which the generated Dockerfile makes a function that says "of two files"."""

    @property
    def deployed(self) -> str:
        """Its name, and its image's."""
        return f"hostler-test-kit-{self.language}"


@attrs.frozen
class KitNode:
    """A node, with the function as ``hello`` and as ``hasty``, which has a timeout of 1 s."""

    kit: Kit
    image: str
    node: NodeProcess
    client: httpx.AsyncClient
    engine: docker.APIClient
    tag: str
    app: str
    fns: Mapping[str, str]
    """Ids by name."""

    async def invoke(self, fn: str = "hello", **document: Any) -> httpx.Response:
        return await self.client.post(f"/invoke/{self.fns[fn]}", json=document)

    async def instance(self, fn: str = "hello") -> str:
        """The process that answers now."""
        answer = await self.invoke(fn)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["instance"])

    async def containers(self) -> list[dict[str, Any]]:
        return of_functions(await trio.to_thread.run_sync(containers, self.engine, self.tag))


@asynccontextmanager
async def open_kit_node(kit: Kit, folder: Path, docker_host: str) -> AsyncIterator[KitNode]:
    """At the end the node stops, cleanly, and leaves no container."""
    image = await trio.to_thread.run_sync(kit.image, docker_host)
    tag = f"hostler-test-{uuid.uuid4().hex}"
    env = {"DOCKER_HOST": docker_host, "FN_CONTAINER_LABEL_TAG": tag}
    options = ("--driver", "docker", "--bind", "127.0.0.1:0")
    with _without_image(docker_host, kit.deployed), engine_of(docker_host, tag) as engine:
        async with (
            open_node("serve", *options, cwd=folder, env=env) as node,
            httpx.AsyncClient(base_url=node.url, timeout=SECONDS) as client,
        ):
            app, fns = await _declare(client, image)
            yield KitNode(kit, image, node, client, engine, tag, app, fns)
            assert await ends(node) == 0, node.log.decode()
            assert errors_of(node) == []
        assert await trio.to_thread.run_sync(containers, engine, tag) == []


@contextmanager
def _without_image(host: str, name: str) -> Iterator[None]:
    """Images of this name are removed at the end."""
    try:
        yield
    finally:
        with contextlib.closing(docker.APIClient(base_url=host, version="auto")) as engine:
            for image in engine.images(name):
                engine.remove_image(image["Id"], force=True)


async def _declare(client: httpx.AsyncClient, image: str) -> tuple[str, dict[str, str]]:
    async def post(path: str, **fields: Any) -> str:
        answer = await client.post(f"/v2/{path}", json=fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    app = await post("apps", name="demo", config={"TENANT_TIER": "gold"})
    common = {"app_id": app, "image": image, "config": {"RUNNER_ZONE": "north"}}
    hello = await post("fns", name="hello", **common)
    hasty = await post("fns", name="hasty", timeout=1, **common)
    await post("triggers", name="t", type="http", source="/hello", app_id=app, fn_id=hello)
    return app, {"hello": hello, "hasty": hasty}


# --- scenarios, in the order in which they run --------------------------------------------------


async def cold_then_hot(on: KitNode) -> None:
    """One container serves all calls, and each has its own context."""
    instances, calls = set(), set()
    for name in ("cold", "hot"):
        before = datetime.datetime.now(datetime.UTC)
        answer = await on.invoke(name=name)
        assert answer.status_code == 200, answer.text
        greeting = answer.json()
        assert greeting["message"] == f"Hello {name}"
        assert (greeting["fn_id"], greeting["app_id"]) == (on.fns["hello"], on.app)
        assert (greeting["tier"], greeting["zone"]) == ("gold", "north")
        assert greeting["call_id"] == answer.headers["fn-call-id"]
        assert datetime.datetime.fromisoformat(greeting["deadline"]) > before
        assert (greeting["method"], greeting["url"]) == (None, None)
        assert answer.headers["x-greeting"] == "hello"
        assert answer.headers["fn-fdk-version"].startswith(on.kit.version)
        instances.add(greeting["instance"])
        calls.add(greeting["call_id"])
    assert (len(instances), len(calls)) == (1, 2)
    (container,) = await on.containers()
    assert container["Config"]["Image"] == on.image


async def error(on: KitNode) -> None:
    """An exception of the function is a 502 that does not tell it; the container is kept."""
    instance = await on.instance()
    failed = await on.invoke(fail="on purpose")
    assert (failed.status_code, failed.json()) == (502, {"message": "function failed"})
    assert "fn-call-id" in failed.headers
    assert await on.instance() == instance


async def trigger(on: KitNode) -> None:
    """The function sees the client's request, and makes status and headers."""
    url = "/t/demo/hello?a=1&b=%20"
    answer = await on.client.put(url, json={"status": 418}, headers={"X-Asked-By": "test"})
    assert answer.status_code == 418
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-greeting"] == "hello"
    assert [name for name in answer.headers if name.startswith("fn-")] == ["fn-call-id"]
    greeting = answer.json()
    assert (greeting["method"], greeting["url"]) == ("PUT", f"{on.node.url}{url}")
    assert greeting["asked_by"] == "test"
    plain = await on.client.get("/t/demo/hello")
    assert (plain.status_code, plain.json()["message"]) == (200, "Hello World")
    failed = await on.client.post("/t/demo/hello", json={"fail": "on purpose"})
    assert (failed.status_code, failed.json()) == (502, {"message": "function failed"})


async def streams(on: KitNode) -> None:
    """Bodies of unknown length that fit in no buffer, both ways."""
    name = "".join(map(str, range(500_000)))

    async def pieces() -> AsyncIterator[bytes]:
        document = json.dumps({"name": name}).encode()
        for start in range(0, len(document), 100_000):
            yield document[start : start + 100_000]

    for path in (f"/invoke/{on.fns['hello']}", "/t/demo/hello"):
        kind = {"Content-Type": "application/json"}
        answer = await on.client.post(path, content=pieces(), headers=kind)
        assert answer.status_code == 200, answer.text
        assert answer.json()["message"] == f"Hello {name}"


async def timeout(on: KitNode) -> None:
    """A function that takes too long is told of, and its container ends."""
    instance = await on.instance("hasty")
    late = await on.invoke("hasty", sleep=600)
    assert (late.status_code, late.json()) == (504, {"message": "Timed out"})
    assert await on.instance("hasty") != instance
    assert {container["Config"]["Image"] for container in await on.containers()} == {on.image}


async def deployed_directory(on: KitNode, folder: Path, docker_host: str) -> None:
    """``hostler deploy`` makes a function of files that only their author may read."""
    name = on.kit.deployed
    text = f"name: {name}\nruntime: {on.kit.language}\nbuild_image: {on.image}\n"
    for path, content in {"func.yaml": text, **on.kit.directory}.items():
        file = folder / path
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(content)
        file.chmod(0o600)
    env = {"FN_API_URL": on.node.url, "DOCKER_HOST": docker_host}
    done = await run("deploy", str(folder), "--app", "demo", env=env, seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    done = await run("invoke", "demo", name, env=env)
    assert done.returncode == 0, done.stderr
    assert "of two files" in done.stdout


async def run_scenarios(on: KitNode) -> None:
    for scenario in (cold_then_hot, error, trigger, streams, timeout):
        with trio.fail_after(SECONDS):
            await scenario(on)
