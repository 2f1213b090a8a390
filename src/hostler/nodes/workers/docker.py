"""The Docker drivers of runners that are workers of one node: they share an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
import trio

from ..._concurrency.drain import DrainBudget
from ...config import AgentConfig
from ...drivers.docker import DockerDriver, ImagesInUse, PeerDrivers, open_docker_driver
from .peers import ASK_SECONDS, PeerWorkers

log = structlog.get_logger(__name__)

CLEANER = 0
"""The worker that removes images for all."""
_IN_USE, _USED = "images in use", "images used"
_HEARD = b"heard"


class WorkerPeerDrivers(PeerDrivers):
    """The drivers of the other workers."""

    def __init__(self, peers: PeerWorkers) -> None:
        self._peers = peers

    @property
    def clean(self) -> bool:
        return self._peers.place.number != CLEANER

    async def images_in_use(self) -> ImagesInUse:
        answers = await self._peers.ask(_IN_USE)
        found = [msgspec.msgpack.decode(answer, type=ImagesInUse) for answer in answers.values()]
        return ImagesInUse(
            ids=frozenset[str]().union(*(each.ids for each in found)),
            names=frozenset[str]().union(*(each.names for each in found)),
        )

    async def tell_used(self, ids: Sequence[str]) -> None:
        message = msgspec.msgpack.encode(ids)
        try:
            with trio.move_on_after(ASK_SECONDS):
                await self._peers.ask_one(CLEANER, _USED, message)
        except OSError as error:  # it is started again, and looks at all images then
            log.debug("the worker that cleans does not answer", reason=str(error))

    def answer_for(self, driver: DockerDriver) -> None:
        """To what the others ask and tell."""

        async def in_use(_: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return msgspec.msgpack.encode(driver.images_in_use())

        async def used(message: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            driver.heard_used(msgspec.msgpack.decode(message, type=list[str]))
            return _HEARD

        self._peers.answer(_IN_USE, in_use)
        self._peers.answer(_USED, used)


@asynccontextmanager
async def open_worker_driver(
    config: AgentConfig,
    environ: Mapping[str, str],
    peers: PeerWorkers,
    grace: DrainBudget | None = None,
) -> AsyncIterator[DockerDriver]:
    """As `open_docker_driver`."""
    part = peers.place.part
    assert part is not None
    neighbours = WorkerPeerDrivers(peers)
    async with open_docker_driver(
        config,
        environ=environ,
        instance_id=part.instance_id(),
        neighbours=neighbours,
        grace=grace,
    ) as driver:
        neighbours.answer_for(driver)
        yield driver
