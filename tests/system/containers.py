"""The containers of a test's runners, as the engine knows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker


@contextmanager
def engine_of(host: str, tag: str) -> Iterator[docker.APIClient]:
    """The test's own view. A runner that a failed test has killed leaves no container either."""
    engine = docker.APIClient(base_url=host, version="auto")
    try:
        yield engine
    finally:
        for container in containers(engine, tag):
            engine.remove_container(container["Id"], force=True)
        engine.close()


def of_functions(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those that hold a network name space."""
    return [one for one in described if one["Config"]["Image"] != "hostler-pause:1"]


def containers(engine: docker.APIClient, tag: str) -> list[dict[str, Any]]:
    """All containers of the runners with this label, as the engine describes them. Blocks."""
    label = {"label": f"fn-agent-classifier={tag}"}
    described = []
    for entry in engine.containers(all=True, filters=label):
        with suppress(docker.errors.NotFound):  # a runner has just removed it
            described.append(engine.inspect_container(entry["Id"]))
    return described
