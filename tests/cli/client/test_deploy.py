"""``hostler deploy DIR`` with a real engine and a real node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from hostler.cli.client.deploy import dockerfile_of
from hostler.cli.client.errors import CommandFailed
from hostler.cli.client.func_file import next_version, read_func_file, write_version
from tests.functions.build import docker_image

from .._process import NodeProcess, open_node, run
from .._terminal import open_terminal

FUNC = """\
schema_version: 20180708
name: hostler-test-deploy  # the image's name, too
version: 0.0.9
memory: 64
config: {A: "1"}
triggers:
- {name: web, type: http, source: /web}
"""


@pytest.fixture
def folder(tmp_path: Path, docker_host: str) -> Path:
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "func.yaml").write_text(FUNC)
    (folder / "Dockerfile").write_text(f"FROM {docker_image(docker_host)}\nCOPY data /data\n")
    (folder / "data").write_text("of the directory")
    return folder


@pytest.fixture
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=docker_host, version="auto")
    yield client
    for image in client.images("hostler-test-deploy"):
        client.remove_image(image["Id"], force=True)
    client.close()


@pytest.fixture
async def node(tmp_path: Path, docker_host: str) -> AsyncIterator[NodeProcess]:
    options = ("--driver", "docker", "--bind", "127.0.0.1:0")
    env = {"DOCKER_HOST": docker_host}
    async with open_node("serve", *options, cwd=tmp_path, env=env) as node:
        yield node
        node.process.terminate()
        assert await node.process.wait() == 0


async def deploy(folder: Path, url: str, *args: str, **env: str) -> Any:
    return await run("deploy", str(folder), *args, env={"FN_API_URL": url, **env})


@pytest.mark.docker
async def test_a_directory_becomes_an_image_and_a_function_and_both_can_change(
    folder: Path, node: NodeProcess, engine: docker.APIClient, docker_host: str
) -> None:
    done = await deploy(folder, node.url, "--app", "shop", "--json", DOCKER_HOST=docker_host)
    assert (done.returncode, done.stderr) == (0, "building hostler-test-deploy:0.0.10\n")
    made = json.loads(done.stdout)
    assert made["triggers"] == [f"{node.url}/t/shop/web"]
    assert (folder / "func.yaml").read_text() == FUNC.replace("0.0.9", "0.0.10")
    assert await read(node, "/data") == "of the directory"

    (folder / "data").write_text("changed")
    (folder / "app.yaml").write_text("name: shop\n")
    text = (folder / "func.yaml").read_text()
    (folder / "func.yaml").write_text(text.replace("/web", "/other").replace('"1"', '"2"'))
    done = await deploy(folder, node.url, "-v", DOCKER_HOST=docker_host)
    assert "Successfully tagged hostler-test-deploy:0.0.11\n" in done.stderr
    assert done.stdout.splitlines()[0] == (
        "deployed shop/hostler-test-deploy (hostler-test-deploy:0.0.11)"
    )
    assert await read(node, "/data") == "changed"
    found = await run("fn", "inspect", "shop", "hostler-test-deploy", "--json", env=at(node))
    fn = json.loads(found.stdout)
    assert (fn["id"], fn["memory"], fn["config"]) == (
        made["endpoint"].rpartition("/")[2],
        64,
        {"A": "2"},
    )
    found = await run("trigger", "list", "shop", "--json", env=at(node))
    assert [trigger["source"] for trigger in json.loads(found.stdout)] == ["/other"]


def at(node: NodeProcess) -> dict[str, str]:
    return {"FN_API_URL": node.url}


async def read(node: NodeProcess, path: str) -> str:
    done: subprocess.CompletedProcess[str] = await run(
        *("invoke", "shop", "hostler-test-deploy", "-d", "", "-H", f"Fnt-Do: read={path}"),
        env=at(node),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.docker
async def test_a_build_that_fails_changes_nothing(
    folder: Path, node: NodeProcess, docker_host: str
) -> None:
    (folder / "Dockerfile").write_text("FROM hostler-test/fnt:latest\nCOPY none /none\n")
    done = await deploy(folder, node.url, "--app", "shop", DOCKER_HOST=docker_host)
    assert (done.returncode, done.stdout) == (1, "")
    _building, error = done.stderr.splitlines()
    assert error.startswith("hostler: error: Docker engine, build image: COPY failed")
    assert (folder / "func.yaml").read_text() == FUNC
    assert json.loads((await run("app", "list", "--json", env=at(node))).stdout) == []


async def test_what_the_server_would_refuse_is_told_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text("name: f\n")
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    nowhere, engine = "http://127.0.0.1:1", "unix:///none/docker.sock"
    done = await deploy(tmp_path, nowhere, "--app", "a b", DOCKER_HOST=engine)
    assert (done.returncode, done.stderr) == (1, "hostler: error: Invalid app name\n")
    done = await deploy(tmp_path, nowhere, "--app", "a", DOCKER_HOST=engine)
    assert done.returncode == 5
    assert done.stderr.startswith("hostler: error: http://127.0.0.1:1 does not answer")


@pytest.mark.docker
async def test_at_a_terminal_a_build_is_one_moving_line_and_a_failed_one_shows_its_last_steps(
    folder: Path, node: NodeProcess, docker_host: str, tmp_path: Path
) -> None:
    (folder / "Dockerfile").write_text("FROM hostler-test/fnt:latest\nCOPY none /none\n")
    command = ("hostler", "deploy", str(folder), "--app", "shop")
    env = {"FN_API_URL": node.url, "DOCKER_HOST": docker_host, "TERM": "xterm"}
    async with open_terminal(command, tmp_path, **env) as terminal:
        shown = await terminal.until("hostler: error: Docker engine, build image: COPY failed")
        assert "building hostler-test-deploy:0.0.10" in shown
        assert "Step 1/2 : FROM hostler-test/fnt:latest\r\n" in shown
        assert "\nStep 2/2 : COPY none /none\r\n" in shown
        assert await terminal.ends() == 1


async def test_without_an_engine_or_an_app_there_is_one_line(
    tmp_path: Path, node: NodeProcess
) -> None:
    (tmp_path / "func.yaml").write_text("name: f\n")
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    env = {"DOCKER_HOST": "unix:///none/docker.sock"}
    done = await deploy(tmp_path, node.url, "--app", "a", **env)
    assert done.returncode == 1
    assert "none answers at unix:///none/docker.sock (No such file or directory)" in done.stderr
    done = await deploy(tmp_path, "http://127.0.0.1:1", **env)
    assert done.returncode == 1
    assert "which app? Name it with --app, or in an app.yaml" in done.stderr


# --- what is built ---------------------------------------------------------------------------


def test_a_python_function_is_built_as_fns_client_does(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text(
        "name: f\nruntime: python3.11\nbuild_image: b\nrun_image: r\n"
        "entrypoint: /python/bin/fdk /function/func.py 'my handler'\ncmd: x\n"
    )
    (tmp_path / "requirements.txt").write_text("fdk\n")
    assert dockerfile_of(read_func_file(tmp_path)).splitlines() == [
        "FROM b AS build-stage",
        "WORKDIR /function",
        "RUN mkdir -p /python",
        "ADD requirements.txt /function/",
        "RUN pip3 install --target /python/ --no-cache --no-cache-dir -r requirements.txt",
        "ADD . /function/",
        "RUN chmod -R o+rX /function /python",
        "FROM r",
        "WORKDIR /function",
        "COPY --from=build-stage /python /python",
        "COPY --from=build-stage /function /function",
        "ENV PYTHONPATH=/function:/python",
        'ENTRYPOINT ["/python/bin/fdk", "/function/func.py", "my handler"]',
        'CMD ["x"]',
    ]


def test_a_python_function_whose_image_would_have_no_kit_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text("")
    with pytest.raises(CommandFailed, match="no kit; write one with the line: fdk"):
        dockerfile_of(read_func_file(tmp_path))
    (tmp_path / "requirements.txt").write_text("fdk\n")
    text = dockerfile_of(read_func_file(tmp_path))
    assert 'ENTRYPOINT ["/python/bin/fdk", "/function/func.py", "handler"]' in text


def test_a_node_function_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "func.js").write_text("")
    (tmp_path / "package.json").write_text("{}")
    text = dockerfile_of(read_func_file(tmp_path))
    assert "RUN npm install\n" in text
    assert text.endswith('ENTRYPOINT ["node", "func.js"]\n')


def test_a_runtime_without_a_recipe_needs_a_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text("name: f\nruntime: go\n")
    with pytest.raises(CommandFailed, match="runtime 'go' is not python or node"):
        dockerfile_of(read_func_file(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    assert dockerfile_of(read_func_file(tmp_path)) == ""


def test_a_version_goes_up_and_all_else_of_the_file_stays(tmp_path: Path) -> None:
    assert next_version("1.2.9") == "1.2.10"
    path = tmp_path / "func.yaml"
    path.write_text("# mine\nname: f\n")
    write_version(path, "0.0.2")
    assert path.read_text() == "# mine\nname: f\nversion: 0.0.2\n"
    write_version(path, "0.0.3")
    assert path.read_text() == "# mine\nname: f\nversion: 0.0.3\n"
    assert [found.name for found in tmp_path.iterdir()] == ["func.yaml"]
