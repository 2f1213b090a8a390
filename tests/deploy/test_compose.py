"""The image that deploy/Dockerfile makes, and the fleet of deploy/compose.yaml, run for real: what
docs/how-to/deploy.md says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import docker
import httpx
import pytest
import yaml

from hostler.cli import app
from hostler.cli.reference import reference_page
from tests.functions.build import IMPORT_TIMEOUT, docker_image

from .image import ROOT, build_image

FILE = ROOT / "deploy" / "compose.yaml"
OVERRIDE = Path(__file__).with_name("override.yaml")
START_SECONDS = 90
TOKEN = "token-of-the-fleet"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NODES = ("api", "lb", "runner-1", "runner-2")


@attrs.frozen
class Fleet:
    """A compose project."""

    name: str
    env: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        """Run Debian's docker-compose; what it prints. Fails with all that it said."""
        command = ["docker-compose", f"--project-name={self.name}", "-f", str(FILE)]
        done = subprocess.run(
            [*command, "-f", str(OVERRIDE), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
            env={"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": "/nonexistent", **self.env},
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def url(self, node: str) -> str:
        return f"http://{self('port', node, '8080').strip()}"


@pytest.fixture(scope="module")
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=docker_host, version="auto", timeout=IMPORT_TIMEOUT)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def image(engine: docker.APIClient) -> str:
    return build_image(engine)


@pytest.fixture(scope="module")
def fleet(
    image: str, docker_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("iofs")
    name = f"hostler-test-{folder.parent.name}".lower()
    fleet = Fleet(
        name,
        {
            "DOCKER_HOST": docker_host,
            "HOSTLER_DOCKER_SOCKET": docker_host.removeprefix("unix://"),
            "HOSTLER_DB_PASSWORD": "secret",
            "HOSTLER_API_TOKEN": TOKEN,
            "HOSTLER_IMAGE": image,
            "HOSTLER_IOFS": str(folder),
            "HOSTLER_TAG": name,
            "HOSTLER_RUNNER_MEMORY": str(1 << 30),
            "HOSTLER_RUNNER_NETWORKS": "2",
        },
    )
    try:
        fleet("up", "--no-build", "--wait", "--pull=never")
        yield fleet
    finally:
        fleet("down", "--volumes", "--timeout=60")
        shutil.rmtree(folder)


def of_tag(engine: docker.APIClient, fleet: Fleet) -> list[Any]:
    containers: list[Any] = engine.containers(all=True)
    return [c for c in containers if any(fleet.name in v for v in c["Labels"].values())]


@pytest.mark.docker
@pytest.mark.slow
def test_the_image_runs_as_nobody_and_has_the_command(engine: docker.APIClient, image: str) -> None:
    config = engine.inspect_image(image)["Config"]  # type: ignore[no-untyped-call]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["hostler"]
    container = engine.create_container(image, ["version"])["Id"]
    try:
        engine.start(container)
        assert engine.wait(container, timeout=30)["StatusCode"] == 0
        assert engine.logs(container).decode().startswith("0.")
    finally:
        engine.remove_container(container, force=True)


@pytest.mark.docker
@pytest.mark.slow
def test_a_function_is_created_called_and_nothing_stays(
    engine: docker.APIClient, docker_host: str, fleet: Fleet
) -> None:
    states = [json.loads(line) for line in fleet("ps", "--format=json").splitlines()]
    assert {state["Service"]: state["Health"] for state in states} == dict.fromkeys(
        ("database", *NODES), "healthy"
    )
    api_url = fleet.url("api")
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False, headers=BEARER) as api:
        assert httpx.get(f"{api_url}/v2/apps", trust_env=False).status_code == 401
        assert api.get("/v2/apps", headers={"Host": "evil.test"}).status_code == 403
        app = api.post("/v2/apps", json={"name": "demo"}).raise_for_status().json()
        fn = {"name": "echo", "app_id": app["id"], "image": docker_image(docker_host)}
        made = api.post("/v2/fns", json=fn).raise_for_status().json()
    fleet("restart", "--no-deps", "api")  # all is in the database
    fleet("up", "--no-build", "--wait", "--pull=never")
    api_url = fleet.url("api")
    with httpx.Client(base_url=api_url, timeout=30, trust_env=False, headers=BEARER) as api:
        assert api.get(f"/v2/fns/{made['id']}").raise_for_status().json()["name"] == "echo"
    with httpx.Client(base_url=fleet.url("lb"), timeout=30, trust_env=False) as lb:
        answer = lb.post(f"/invoke/{made['id']}", content=b"hello")
    assert (answer.status_code, answer.content) == (200, b"hello")

    functions = [c for c in of_tag(engine, fleet) if c["Image"] == fn["image"]]
    assert len(functions) == 1
    fleet("stop", "--timeout=60")
    lines = fleet("ps", "--all", "--format=json").splitlines()
    assert [json.loads(line)["ExitCode"] for line in lines] == [0] * (1 + len(NODES))
    assert [c for c in of_tag(engine, fleet) if c["Image"] == fn["image"]] == []
    assert [*Path(fleet.env["HOSTLER_IOFS"]).glob("*/*")] == []


def test_compose_and_nodes_know_all_that_the_file_says() -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(FILE), "config"],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "HOSTLER_DB_PASSWORD": "secret",
            "HOSTLER_API_TOKEN": TOKEN,
        },
    )
    assert "variable is not set" not in done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"database", *NODES}
    page = reference_page(app)
    for node in NODES:
        for variable in services[node]["environment"]:
            assert f"| `{variable}` |" in page
        assert services[node]["read_only"] is True
    assert services["lb"]["cap_drop"] == services["api"]["cap_drop"] == ["ALL"]
    tags = {services[node]["environment"]["FN_CONTAINER_LABEL_TAG"] for node in NODES[2:]}
    assert len(tags) == 2


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("HOSTLER_API_TOKEN", "a password for the database"),
        ("HOSTLER_DB_PASSWORD", "a token of 16 characters or more"),
    ],
)
def test_a_fleet_needs_a_password_and_a_token(given: str, missing: str) -> None:
    done = subprocess.run(
        ["docker-compose", "-f", str(FILE), "config"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", given: TOKEN},
    )
    assert done.returncode != 0
    assert missing in done.stderr
