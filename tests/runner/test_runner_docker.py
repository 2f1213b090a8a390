"""A runner's status and log streams with containers of a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler.agent import open_agent
from hostler.config import AgentConfig
from hostler.drivers.docker import open_docker_driver
from hostler.metrics import AgentMetrics
from hostler.protocol import Data, Finished, LogAck, LogStart, RunnerFrame
from hostler.runner import FunctionLogs, RunnerOptions, StatusChecks, open_runner_service
from hostler.testing import MemoryRunnerClient
from tests.functions.build import docker_image

from .runners import try_call

pytestmark = pytest.mark.docker


@pytest.fixture
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=docker_host, version="auto")
    yield client
    client.close()


def containers(engine: docker.APIClient, tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.containers(
        all=True, filters={"label": f"fn-agent-classifier={tag}"}
    )
    return found


async def test_status_image_and_log_lines(
    docker_host: str, engine: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.runner.status.IDLE_TIMEOUT", 60)  # so that it can be looked at
    status_image = docker_image(docker_host)
    function = docker_image(docker_host, "hostler-test/fnt:logs", ["ENV LOGS=1"])
    tag = f"hostler-test-{uuid.uuid4().hex}"
    iofs = tmp_path / "iofs"
    iofs.mkdir(mode=0o755)
    config = AgentConfig(
        iofs_path=str(iofs), container_label_tag=tag, experimental_prefork_pool_size=0
    )
    metrics = AgentMetrics(CollectorRegistry())
    logs = FunctionLogs(metrics=metrics)
    checks = StatusChecks(image=status_image, barrier=str(tmp_path / "network-is-up"))
    runner_options = RunnerOptions(checks=checks, logs=logs, metrics=metrics)
    with trio.fail_after(60):
        async with (
            open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver,
            open_agent(driver, config=config, output=logs.collect, metrics=metrics) as agent,
            open_runner_service(agent, runner_options) as service,
        ):
            client = MemoryRunnerClient(service)
            await _check_status(client, engine, tag)
            call = try_call(function, headers={"Fnt-Do": ["out=hello;err=oops"]})
            async with client.engage(call, first=Data(b"", eof=True)) as engagement:
                frames: list[RunnerFrame] = []
                while (frame := await engagement.receive()) is not None:
                    frames.append(frame)
            assert isinstance(frames[-1], Finished)
            assert frames[-1].success, frames[-1]
            lines: set[tuple[bytes, bool]] = set()
            async with client.stream_logs() as collector:
                await collector.send(LogStart())
                while len(lines) < 2:
                    await collector.send(LogAck())
                    batch = await collector.receive()
                    assert batch is not None
                    for request in batch[0].requests:
                        assert request.request_id == f"call-{function}"
                        lines |= {(line.data, line.stderr) for line in request.lines}
            assert lines == {(b"hello", False), (b"oops", True)}
            await service.drain(10)
            await client.aclose()
    assert agent.statistics().at_rest
    assert containers(engine, tag) == []
    assert list(iofs.iterdir()) == []


async def _check_status(client: MemoryRunnerClient, engine: docker.APIClient, tag: str) -> None:
    status = await client.status('{"k":"v"}')
    assert (status.failed, status.details) == (False, '{"k":"v"}'), status
    assert status.is_network_disabled
    assert status.ctr_create_ns > 0
    (container,) = containers(engine, tag)
    host = engine.inspect_container(container["Id"])["HostConfig"]
    assert (host["NetworkMode"], host["Memory"]) == ("none", 0)
