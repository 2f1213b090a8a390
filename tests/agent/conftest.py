"""A real engine for one test of the agent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functions.build import docker_image

from .machine import Machine, open_machine


@pytest.fixture(scope="session")
def fnt_image(docker_host: str) -> str:
    return docker_image(docker_host)


@pytest.fixture
def machine(docker_host: str, fnt_image: str) -> Iterator[Machine]:
    with open_machine(docker_host, fnt_image) as machine:
        yield machine
