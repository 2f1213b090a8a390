"""What the driver does once, when it is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import IO, Any

import docker
import structlog
import trio

from ..._concurrency.signal import Calm
from ...errors import ConfigError
from ._archives import load_archive
from ._containers import remove_container
from ._engine import Engine
from ._errors import EngineError, EngineTooOld
from ._home import is_inhabited
from ._instance import family_of, is_living
from ._limits import Operation
from ._options import LABEL_CLASSIFIER, LABEL_HOME, LABEL_INSTANCE

log = structlog.get_logger(__name__)

RETRY_DELAY = 0.5
"""Seconds between two attempts to list leaked containers (Fn's limit of twice a second)."""
_NOT_FOUND = 404
REMOVALS = 2
"""Leaked containers that are removed at the same time: calls come meanwhile."""
WAY_SECONDS = 2.0
"""How long each of these removals makes way for launches at most."""


async def check_version(engine: Engine, minimum: str) -> None:
    """Raises `EngineTooOld` if the engine's version is below ``minimum``."""

    def request(client: docker.APIClient) -> str:
        return str(client.version()["Version"])

    version = await engine.call(Operation.CONNECT, request)
    if version_numbers(version) < version_numbers(minimum):
        raise EngineTooOld(f"Docker engine {version} is too old, {minimum} is the minimum")


def version_numbers(version: str) -> tuple[int, int, int]:
    """The three numbers of ``26.1.5+dfsg1`` or ``17.10.0-ce``; suffixes say nothing about age.

    Raises `ConfigError` for a text that does not begin with them.
    """
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise ConfigError(f"not a version of Docker: {version!r}")
    major, minor, patch = match.groups(default="0")
    return int(major), int(minor), int(patch)


async def source_exists(engine: Engine, path: str) -> bool:
    """Whether the engine takes ``path`` for a directory that a container could be given."""
    mount = {"Type": "bind", "Source": path, "Target": "/probe"}
    payload = {"Image": "hostler.invalid/none", "HostConfig": {"Mounts": [mount]}}

    def request(client: docker.APIClient) -> None:
        client.create_container_from_config(payload)  # type: ignore[no-untyped-call]  # the stubs lack its types

    try:
        await engine.call(Operation.CREATE, request)
    except EngineError as error:
        return error.status == _NOT_FOUND
    return False


async def load_images(engine: Engine, path: str) -> None:
    """Load the archive of images at ``path`` into the engine.

    Raises `ConfigError` if the file can't be read and `EngineError` if the engine refuses it.
    """

    def open_file() -> IO[bytes]:
        try:
            return open(path, "rb")
        except OSError as error:
            raise ConfigError(f"can't read FN_DOCKER_LOAD_FILE: {error}") from error

    await load_archive(engine, open_file)
    log.info("images loaded", path=path)


async def remove_leaked(
    engine: Engine, launches: Calm, labels: Mapping[str, str], *, may_share: bool = False
) -> None:
    """Remove the containers, running or not, of earlier instances with the same label tag, that
    is of those that don't live on this machine any more. If others ``may_share`` the tag, none that
    lives is worth a warning.

    Tries to list them until it succeeds; a container that can't be removed is logged. Makes way for
    ``launches``.
    """
    found = await _listed(engine, f"{LABEL_CLASSIFIER}={labels[LABEL_CLASSIFIER]}")
    await _remove(
        engine, launches, _of_the_dead(found, labels[LABEL_INSTANCE], may_share=may_share)
    )


async def remove_homeless(engine: Engine, launches: Calm, home: str) -> None:
    """Remove the containers of runners whose own containers have ended, whatever their tags.
    ``home`` is that of this runner, or "". Tries and logs as `remove_leaked`."""
    found = await _listed(engine, LABEL_HOME)
    home_of = {str(row["Id"]): _label_in(row, LABEL_HOME) for row in found}
    left: set[str] = set()
    for each in {*home_of.values()} - {home, ""}:
        try:
            if not await is_inhabited(engine, each):
                left.add(each)
        except EngineError as error:  # rather none too many
            log.info("container of a runner not found", home=each, reason=str(error))
    await _remove(engine, launches, [name for name, each in home_of.items() if each in left])


async def _remove(engine: Engine, launches: Calm, names: Iterable[str]) -> None:
    places = trio.CapacityLimiter(REMOVALS)

    async def remove(name: str) -> None:
        async with places:
            await launches.wait(trio.current_time() + WAY_SECONDS)
            await _remove_one(engine, name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(remove, name)


async def _listed(engine: Engine, label: str) -> list[dict[str, Any]]:
    """All containers with ``label``."""

    def request(client: docker.APIClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
        return found

    while True:
        try:
            return await engine.call(Operation.LIST, request)
        except EngineError as error:
            log.warning("leaked containers not listed, will try again", error=str(error))
            await trio.sleep(RETRY_DELAY)


def _of_the_dead(found: list[dict[str, Any]], ours: str, *, may_share: bool) -> list[str]:
    instance_of = {str(row["Id"]): _label_in(row, LABEL_INSTANCE) for row in found}
    instances = set(instance_of.values())
    alive = {instance for instance in instances - {ours} if is_living(instance)}
    for instance in alive:
        if not may_share and family_of(instance) != family_of(ours):
            log.warning("another runner with our label tag is running", instance=instance)
    alive.add(ours)
    return [name for name, instance in instance_of.items() if instance not in alive]


def _label_in(row: dict[str, Any], name: str) -> str:
    """Empty if there is none. As an instance that is no living one: only ours carry the label asked
    for."""
    return str((row.get("Labels") or {}).get(name, ""))


async def _remove_one(engine: Engine, container_id: str) -> None:
    try:
        await remove_container(engine, container_id)
    except EngineError as error:
        log.warning("leaked container not removed", container=container_id, error=str(error))
    else:
        log.info("leaked container removed", container=container_id)
