"""A service provider's own code around hostler: two overriders and a custom driver.

The LB gives each call a tier and its CPU shares. The runner adds its zone. The driver turns all
three into settings of the container. No code of hostler is changed:

    hostler runner --overrider provider:runner_overrider --driver provider:open_driver ...
    hostler lb --overrider provider:lb_overrider ...
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hostler.abc import CallRequest, ContainerTask, Cookie, Driver
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerOptions, open_docker_driver
from hostler.drivers.process import open_process_driver
from hostler.errors import APIError
from hostler.models import Call

TIER = "tenant-tier"
SHARES = "cpu-shares"
ZONE = "runner-zone"

ENVIRONMENT = {TIER: "TENANT_TIER", ZONE: "RUNNER_ZONE"}
"""The extensions that a function sees, with the names of their environment variables."""

SHARES_OF_TIER = {"gold": "2048", "silver": "1024", "bronze": "256"}
"""Docker's CPU shares, a weight. The default of a container is 1024."""


def lb_overrider(
    request: CallRequest, call: Call, extensions: Mapping[str, str]
) -> Mapping[str, str]:
    """On the LB: the tier of the app, not the function, decides about CPU and tmpfs."""
    call.cpus = 0
    call.tmpfs_size = 0
    tier = call.config.get("TIER", "bronze")
    if tier not in SHARES_OF_TIER:
        raise APIError(400, f"TIER is {tier!r}, known are {', '.join(SHARES_OF_TIER)}")
    return {**extensions, TIER: tier, SHARES: SHARES_OF_TIER[tier]}


def runner_overrider(
    request: CallRequest, call: Call, extensions: Mapping[str, str]
) -> Mapping[str, str]:
    """On the runner: add the runner's zone."""
    return {**extensions, ZONE: os.environ.get("ZONE", "zone-unknown")}


class ProviderDriver(Driver):
    """Wraps a driver, and changes its two methods that depend on extensions."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        cookie = await self._inner.create_cookie(task)
        for extension, variable in ENVIRONMENT.items():
            if extension in task.extensions:
                cookie.options.env[variable] = task.extensions[extension]
        if SHARES in task.extensions and isinstance(cookie.options, DockerOptions):
            cookie.options.host_config["CpuShares"] = int(task.extensions[SHARES])
        return cookie

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        """Calls that differ in one of our extensions must not share a container."""
        ours = {name: extensions.get(name) for name in (TIER, SHARES, ZONE)}
        return json.dumps([ours, self._inner.slot_key_extension(extensions)])


@asynccontextmanager
async def open_driver(config: AgentConfig) -> AsyncIterator[Driver]:
    """For ``--driver provider:open_driver``: Docker containers with our settings."""
    async with open_docker_driver(config) as docker:
        yield ProviderDriver(docker)


@asynccontextmanager
async def open_driver_without_docker(config: AgentConfig) -> AsyncIterator[Driver]:
    """Local processes with our settings, for a machine without an engine. No CPU shares."""
    async with open_process_driver() as processes:
        yield ProviderDriver(processes)
