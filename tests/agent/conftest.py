"""A real engine for one test of the agent."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.functions.build import docker_image

from .machine import Machine


@pytest.fixture(scope="session")
def fnt_image(docker_host: str) -> str:
    return docker_image(docker_host)


@pytest.fixture
def machine(docker_host: str, fnt_image: str) -> Iterator[Machine]:
    engine = docker.APIClient(base_url=docker_host, version="auto")
    with tempfile.TemporaryDirectory(prefix="fn") as folder:
        os.chmod(folder, 0o755)
        machine = Machine(
            docker_host, fnt_image, f"hostler-test-{uuid.uuid4().hex}", Path(folder), engine
        )
        yield machine
        for container in machine.containers():  # of a test that has failed
            engine.remove_container(container["Id"], force=True)
    engine.close()
