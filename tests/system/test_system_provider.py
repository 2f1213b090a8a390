"""The example of the custom driver, over processes: extensions from both sides, down to a function.

The overriders and the driver are those of examples/custom_driver. The load balancer's is wrapped
by one that lets a request choose its tier, so that calls of one function differ in nothing but
their extensions.
"""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.functions.build import docker_image, fdk_command, fdk_image

from .containers import containers, engine_of, of_functions
from .http import Reply, call
from .nodes import Fleet, Functions, errors_of, open_lb, open_runner

PROVIDER = Path(__file__).parents[2] / "examples" / "custom_driver"
ZONES = ("north", "south")
BY_HEADER = """
import provider

def override(request, call, extensions):
    extensions = dict(provider.lb_overrider(request, call, extensions))
    tier = request.headers.get("Tier", ["silver"])[0]
    return {**extensions, provider.TIER: tier, provider.SHARES: provider.SHARES_OF_TIER[tier]}
"""
SLOW = """
import time

def handler(ctx, data=None):
    time.sleep(60)
"""


@asynccontextmanager
async def open_provider(
    folder: Path, driver: str, functions: Functions, env: Mapping[str, str] | None = None
) -> AsyncIterator[Fleet]:
    """An LB over a runner in each zone, all with the provider's code."""
    (folder / "by_header.py").write_text(BY_HEADER)
    code = {"PYTHONPATH": f"{PROVIDER}:{folder}:{os.environ.get('PYTHONPATH', '')}", **(env or {})}
    overrider = ("--overrider", "provider:runner_overrider")

    def runner(zone: str) -> Any:
        settings = {**code, "ZONE": zone}
        return open_runner(folder, *overrider, driver=f"provider:{driver}", env=settings)

    async with (
        runner(ZONES[0]) as north,
        runner(ZONES[1]) as south,
        open_lb(
            folder,
            [north.address, south.address],
            *("--overrider", "by_header:override"),
            functions=functions,
            env=code,
        ) as lb,
    ):
        yield Fleet(lb, [north, south])


async def see(fleet: Fleet, tier: str, fn: str = "fnt") -> dict[str, Any]:
    """One call: what its function process sees of itself."""
    reply = await call(fleet.lb, "env", b"hello", fn=fn, Tier=tier)
    assert reply.status == 200, [errors_of(runner.node) for runner in fleet.runners]
    seen: dict[str, Any] = reply.json()
    assert seen["env"]["TENANT_TIER"] == tier
    assert seen["env"]["RUNNER_ZONE"] in ZONES
    assert seen["body_size"] == 5
    return seen


async def tiers_do_not_meet(fleet: Fleet) -> None:
    """Calls that differ in an extension alone run in different processes, hot ones too."""
    seen: dict[str, set[str]] = {"gold": set(), "bronze": set()}
    for _ in range(3):
        for tier, ids in seen.items():
            ids.add((await see(fleet, tier))["id"])
    assert not seen["gold"] & seen["bronze"]
    assert all(len(ids) <= len(ZONES) for ids in seen.values()), "hot containers are used again"


async def detached_has_extensions(fleet: Fleet) -> None:
    """The process that ran the detached call is asked afterwards."""
    reply = await call(fleet.lb, fn="later", Tier="gold", Fn_Invoke_Type="detached")
    assert (reply.status, reply.body) == (202, b"")
    requests = [(await see(fleet, "gold", "later"))["request"] for _ in range(len(ZONES))]
    assert max(requests) >= 2, requests


async def test_extensions_reach_local_processes(folder: Path) -> None:
    functions: Functions = {"fnt": {}, "later": {}}
    async with open_provider(folder, "open_driver_without_docker", functions) as fleet:
        await tiers_do_not_meet(fleet)
        await detached_has_extensions(fleet)
        await fleet.drain()


def check_containers(described: list[dict[str, Any]]) -> None:
    """The provider's settings, as the engine has them."""
    shares = {"gold": 2048, "silver": 1024, "bronze": 256}
    seen = set()
    for container in described:
        environment = dict(item.split("=", 1) for item in container["Config"]["Env"])
        tier = environment["TENANT_TIER"]
        assert environment["RUNNER_ZONE"] in ZONES
        assert container["HostConfig"]["CpuShares"] == shares[tier]
        assert container["HostConfig"]["NanoCpus"] == 0
        seen.add(tier)
    assert seen == {"gold", "bronze", "silver"}


@pytest.mark.docker
async def test_extensions_reach_containers_and_their_settings(
    folder: Path, docker_host: str
) -> None:
    image = await trio.to_thread.run_sync(docker_image, docker_host)
    kit_image = await trio.to_thread.run_sync(fdk_image, docker_host)
    functions: Functions = {
        "fnt": {"image": image},
        "later": {"image": image},
        "hello": {"image": kit_image, "memory": 128},
    }
    tag = f"hostler-test-{uuid.uuid4().hex}"
    env = {"DOCKER_HOST": docker_host, "FN_CONTAINER_LABEL_TAG": tag}
    with engine_of(docker_host, tag) as engine:
        async with open_provider(folder, "open_driver", functions, env) as fleet:
            await tiers_do_not_meet(fleet)
            await detached_has_extensions(fleet)
            await kit_function(fleet)
            found = await trio.to_thread.run_sync(containers, engine, tag)
            check_containers(of_functions(found))
            await fleet.drain()
        assert await trio.to_thread.run_sync(containers, engine, tag) == []


async def kit_function(fleet: Fleet) -> None:
    """A function on Fn's unmodified kit: cold, hot, a status of its own, and failing."""

    async def hello(document: bytes, **headers: str) -> Reply:
        return await call(fleet.lb, content=document, fn="hello", **headers)

    for _ in range(3):
        greeting = (await hello(b'{"name": "Ada"}')).json()
        assert greeting["message"] == "Hello Ada"
        assert greeting["tier"] == "silver"
        assert greeting["zone"] in ZONES
    # The kit hands on a status of the function's own only to a gateway.
    taught = await hello(b'{"status": 418}', Fn_Intent="httprequest")
    assert (taught.status, taught.headers["fn-http-status"]) == (200, "418")
    failed = await hello(b'{"fail": "on purpose"}')
    assert (failed.status, failed.json()) == (502, {"message": "function failed"})
    assert (await hello(b"")).json()["message"] == "Hello World"


async def test_kit_function_as_local_process(folder: Path) -> None:
    command = await trio.to_thread.run_sync(fdk_command)
    slow = folder / "slow.py"
    slow.write_text(SLOW)
    functions: Functions = {
        "hello": {"image": shlex.join(command), "memory": 128},
        "slow": {"image": shlex.join([*command[:-2], str(slow), "handler"]), "timeout": 1},
    }
    async with open_provider(folder, "open_driver_without_docker", functions) as fleet:
        await kit_function(fleet)
        late = await call(fleet.lb, fn="slow")
        assert (late.status, late.json()) == (504, {"message": "Timed out"})
        await fleet.drain()
