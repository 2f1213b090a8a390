"""The driver without processes: every container is a task on (virtual) time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from hostler._concurrency.nurseries import open_background
from hostler.abc import ContainerTask, Driver
from hostler.errors import HostlerError

from ._container import SimContainer
from ._cookie import SimCookie
from ._image import SimHandler, SimImage, Stage, echo


@attrs.frozen
class SimEvent:
    """Something that happened: ``cookie``, ``validated``, ``pulled``, ``created``, ``started``,
    ``ready``, ``request``, ``frozen``, ``thawed``, ``exited`` or ``removed``.

    ``time`` is ``trio.current_time`` in seconds.
    """

    kind: str
    container_id: str
    image: str
    time: float


@attrs.frozen(kw_only=True)
class SimStatistics:
    """``created``, ``removed``, ``pulls`` and ``requests`` count since the driver was opened;
    the others count what there is now."""

    created: int
    removed: int
    pulls: int
    requests: int
    cookies: int
    containers: int
    running: int
    frozen: int
    connections: int


class SimDriver(Driver):
    """Runs handlers as if they were containers. See `open_sim_driver`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.images: dict[str, SimImage] = {}
        self.events: list[SimEvent] = []
        """Everything that happened, in order."""
        self.nursery = nursery
        self.cookies: set[SimCookie] = set()
        self._existing: dict[str, SimCookie] = {}
        self._counts: Counter[str] = Counter()
        self._closed = False

    def __repr__(self) -> str:
        return f"<SimDriver {self.statistics()}>"

    def add_image(self, name: str, handler: SimHandler = echo, **settings: Any) -> SimImage:
        """Make an image known; ``settings`` are fields of `SimImage`. A ``pull_time`` means that
        it is not on the machine yet. Replaces an image of that name for later containers."""
        settings.setdefault("on_machine", "pull_time" not in settings)
        image = SimImage(name=name, handler=handler, **settings)
        self.images[name] = image
        return image

    def containers(self) -> list[SimContainer]:
        """The started containers that were not removed, oldest first."""
        cookies = self._existing.values()
        return [cookie.container for cookie in cookies if cookie.container is not None]

    def exists(self, container_id: str) -> bool:
        """Whether a container of this name was created (or begun) and not removed."""
        return container_id in self._existing

    def kinds(self, container_id: str | None = None) -> list[str]:
        """The kinds of `events` in order, of all containers or of one."""
        return [e.kind for e in self.events if container_id in (None, e.container_id)]

    def statistics(self) -> SimStatistics:
        states = Counter(container.state for container in self.containers())
        return SimStatistics(
            created=self._counts["created"],
            removed=self._counts["removed"],
            pulls=self._counts["pulled"],
            requests=self._counts["request"],
            cookies=len(self.cookies),
            containers=len(self._existing),
            running=states["running"],
            frozen=states["frozen"],
            connections=sum(container.connections for container in self.containers()),
        )

    async def create_cookie(self, task: ContainerTask) -> SimCookie:
        await trio.lowlevel.checkpoint()
        self.check_open()
        self.note("cookie", task.id, task.image)
        await self.fault("cookie", task)
        cookie = SimCookie(self, task)
        self.cookies.add(cookie)
        return cookie

    async def aclose(self) -> None:
        """End what is left of the containers. Idempotent."""
        self._closed = True
        await trio.lowlevel.checkpoint()
        for container in self.containers():
            container.kill()
            await container.wait()

    def check_open(self) -> None:
        if self._closed:
            raise HostlerError("the sim driver is closed")

    def note(self, kind: str, container_id: str, image: str) -> None:
        self._counts[kind] += 1
        self.events.append(SimEvent(kind, container_id, image, trio.current_time()))

    async def fault(self, stage: Stage, task: ContainerTask) -> None:
        image = self.images.get(task.image)
        fault = None if image is None else image.faults.get(stage)
        if isinstance(fault, Exception):
            raise fault.with_traceback(None)
        if fault is not None:
            await fault(task)

    def add(self, container_id: str, cookie: SimCookie) -> None:
        if container_id in self._existing:
            raise HostlerError(f"the container name {container_id!r} is in use")
        self._existing[container_id] = cookie

    def remove(self, container_id: str) -> None:
        del self._existing[container_id]


@asynccontextmanager
async def open_sim_driver(
    images: Mapping[str, SimHandler] | None = None,
) -> AsyncIterator[SimDriver]:
    """Open a driver that runs ``images`` (name to handler) and whatever `SimDriver.add_image`
    adds. Uses no thread and no process, so that it works on an autojump clock.

    Leaving the block ends all containers.
    """
    async with open_background() as nursery:
        driver = SimDriver(nursery)
        for name, handler in (images or {}).items():
            driver.add_image(name, handler)
        try:
            yield driver
        finally:
            driver._closed = True
            nursery.cancel_scope.cancel()
