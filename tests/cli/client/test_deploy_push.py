"""``hostler deploy --push`` to a real registry, and ``hostler logs --follow`` of containers."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import httpx
import pytest
import trio

from tests.drivers.docker.real_registry import PASSWORD, USER, Registry, open_registry
from tests.functions.build import docker_image

from .._process import END_SECONDS, SCRIPT, NodeProcess, clean_env, open_node, run

pytestmark = pytest.mark.docker
NAME = "hostler-test-push"


@pytest.fixture
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(base_url=docker_host, version="auto")) as client:
        yield client
        remove_images(client)


def remove_images(client: docker.APIClient) -> None:
    for image in client.images():
        if any(NAME in tag for tag in image["RepoTags"] or ()):
            client.remove_image(image["Id"], force=True)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """One that wants a password."""
    (tmp_path / "registry").mkdir()
    async with open_registry(tmp_path / "registry", basic_auth=True) as registry:
        yield registry


@pytest.fixture
def folder(tmp_path: Path, docker_host: str) -> Path:
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "func.yaml").write_text(f"name: {NAME}\nversion: 0.0.1\n")
    (folder / "Dockerfile").write_text(f"FROM {docker_image(docker_host)}\nLABEL mine=1\n")
    return folder


def login(tmp_path: Path, registry: Registry, password: str) -> dict[str, str]:
    """As ``docker login`` leaves it."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    document = {"auths": {registry.address: {"auth": auth}}}
    (tmp_path / "docker").mkdir(exist_ok=True)
    (tmp_path / "docker" / "config.json").write_text(json.dumps(document))
    return {"DOCKER_CONFIG": str(tmp_path / "docker")}


@pytest.fixture
async def node(tmp_path: Path, docker_host: str, registry: Registry) -> AsyncIterator[NodeProcess]:
    options = ("serve", "--driver", "docker", "--bind", "127.0.0.1:0")
    env = {"DOCKER_HOST": docker_host, "FN_LOG_TAIL_BYTES": "100000"}
    env |= login(tmp_path, registry, PASSWORD)
    async with open_node(*options, cwd=tmp_path, env=env) as node:
        yield node
        node.process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0


async def test_an_image_goes_by_a_registry_to_a_node_that_has_it_not(
    folder: Path, node: NodeProcess, registry: Registry, engine: docker.APIClient, tmp_path: Path,
    docker_host: str,
) -> None:  # fmt: skip
    env = {"DOCKER_HOST": docker_host, "FN_API_URL": node.url}
    prefix = f"{registry.address}/team"
    deploy = ("deploy", str(folder), "--app", "shop", "--push", "--registry", prefix)

    refused = await run(*deploy, env={**env, **login(tmp_path, registry, "wrong")})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "hostler: error: Docker engine, push image: " in refused.stderr
    assert json.loads((await run("app", "list", "--json", env=env)).stdout) == []
    assert "version: 0.0.1\n" in (folder / "func.yaml").read_text()

    env |= login(tmp_path, registry, PASSWORD)
    done = await run(*deploy, "--json", env=env)
    image = f"{prefix}/{NAME}:0.0.2"
    assert (done.returncode, done.stderr) == (0, f"building {image}\npushing {image}\n")
    assert json.loads(done.stdout)["image"] == image
    async with httpx.AsyncClient(auth=(USER, PASSWORD), timeout=60) as client:
        tags = await client.get(f"http://{registry.address}/v2/team/{NAME}/tags/list")
        assert tags.json()["tags"] == ["0.0.2"]
    remove_images(engine)  # as if the node were on another machine
    answer = await run("invoke", "shop", NAME, "-d", "pulled", env=env)
    assert (answer.returncode, answer.stdout) == (0, "pulled"), answer.stderr

    with trio.fail_after(60):
        follow = await trio.lowlevel.open_process(
            [str(SCRIPT), "logs", "shop", "--follow", "--json"],
            stdout=subprocess.PIPE,
            env=clean_env(env),
        )
        try:
            assert follow.stdout is not None
            for text in ("first", "second"):
                say = ("-d", "x", "-H", f"Fnt-Do: out={text}")
                assert (await run("invoke", "shop", NAME, *say, env=env)).returncode == 0
                line = json.loads(await follow.stdout.receive_some())
                assert (line["line"], line["stream"]) == (text, "stdout")
            follow.send_signal(signal.SIGINT)
            assert await follow.wait() == 130
        finally:
            if follow.returncode is None:
                follow.kill()
                await follow.wait()
