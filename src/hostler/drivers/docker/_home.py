"""The container that a runner itself lives in, if it is one of the engine that the runner uses.

Locks (`_instance`) tell nothing of a runner that was killed with its container: the next one is in
another, or has an empty ``/tmp``. But the engine knows whether that container still runs.
"""

from __future__ import annotations

import re

import docker
import structlog
import trio

from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation

log = structlog.get_logger(__name__)

MOUNTS = "/proc/self/mountinfo"
"""See proc_pid_mountinfo(5)."""
_HOSTNAME = re.compile(r"/containers/([0-9a-f]{64})/hostname$")
_NOT_FOUND = 404


def container_in(mounts: str) -> str:
    """The id of the container that has ``mounts``: engines keep its ``/etc/hostname`` in a folder
    of that name. "" = it is none of them."""
    for line in mounts.splitlines():
        fields = line.split(" ", 5)
        if fields[4:5] == ["/etc/hostname"] and (found := _HOSTNAME.search(fields[3])):
            return found[1]
    return ""


async def find_home(engine: Engine) -> str:
    """The container of this process and when it was started, as a label says it; "" = it has none
    that ``engine`` knows, or it may be another one."""
    try:
        # Names of directories may be of any bytes.
        container_id = container_in(await trio.Path(MOUNTS).read_text(errors="replace"))
        if not container_id or await _is_shared(engine, container_id):
            return ""
        return await _life_of(engine, container_id)
    except (OSError, EngineError) as error:
        log.info("own container not found", reason=str(error))
        return ""


async def _is_shared(engine: Engine, container_id: str) -> bool:
    """Whether others have joined its network: they have its ``/etc/hostname``, too, and live on
    when it is started again. So who has that file may be any of them."""

    def request(client: docker.APIClient) -> bool:
        rows = client.containers(all=True)
        modes = {(row.get("HostConfig") or {}).get("NetworkMode") for row in rows}
        return f"container:{container_id}" in modes

    return await engine.call(Operation.LIST, request)


async def is_inhabited(engine: Engine, home: str) -> bool:
    """Whether that container, which `find_home` found, has run since. Raises `EngineError`."""
    return await _life_of(engine, home.partition(" ")[0]) == home


async def _life_of(engine: Engine, container_id: str) -> str:
    def request(client: docker.APIClient) -> str:
        state = client.inspect_container(container_id)["State"]
        return f"{container_id} {state['StartedAt']}" if state["Running"] else ""

    try:
        return await engine.call(Operation.INSPECT_CONTAINER, request)
    except EngineError as error:
        if error.status != _NOT_FOUND:
            raise
        return ""
