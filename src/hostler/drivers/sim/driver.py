"""Simulated driver and cookies, with an event record."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from ..._arguments import all_callable, check
from ..._concurrency.nurseries import open_background
from ...abc import ContainerTask, Cookie, Driver, RunningContainer
from ...errors import HostlerError, ImagePullFailed, ImageWithVolume, ServerBusy
from .container import SimContainer, SimHandler, SimImage, Stage, echo


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
        """What the driver has now, and what it has done. Synchronous."""
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
        """Raises `HostlerError` once the driver is closed. Synchronous."""
        if self._closed:
            raise HostlerError("the sim driver is closed")

    def note(self, kind: str, container_id: str, image: str) -> None:
        """Append to `events`, with the time (`trio.current_time`). Synchronous."""
        self._counts[kind] += 1
        self.events.append(SimEvent(kind, container_id, image, trio.current_time()))

    async def fault(self, stage: Stage, task: ContainerTask) -> None:
        """Do what the task's image has in ``faults`` for ``stage``: raise the exception, or await
        the function, which may hang. Without one it returns at once."""
        image = self.images.get(task.image)
        fault = None if image is None else image.faults.get(stage)
        if isinstance(fault, Exception):
            raise fault.with_traceback(None)
        if fault is not None:
            await fault(task)

    def add(self, container_id: str, cookie: SimCookie) -> None:
        """From here on the container exists. Raises `HostlerError` if another one has the name."""
        if container_id in self._existing:
            raise HostlerError(f"the container name {container_id!r} is in use")
        self._existing[container_id] = cookie

    def remove(self, container_id: str) -> None:
        """The container does not exist any more. Raises `KeyError` if it did not. Synchronous."""
        del self._existing[container_id]


@asynccontextmanager
async def open_sim_driver(
    images: Mapping[str, SimHandler] | None = None,
) -> AsyncIterator[SimDriver]:
    """Open a driver that runs ``images`` (name to handler) and whatever `SimDriver.add_image`
    adds. Uses no thread and no process, so that it works on an autojump clock.

    Leaving the block ends all containers. Raises `ConfigError` for handlers that can't be called.
    """
    check("open_sim_driver", optional=True, images=(images, Mapping))
    all_callable("open_sim_driver: images", (images or {}).values())
    async with open_background() as nursery:
        driver = SimDriver(nursery)
        for name, handler in (images or {}).items():
            driver.add_image(name, handler)
        try:
            yield driver
        finally:
            driver._closed = True
            nursery.cancel_scope.cancel()


@attrs.define(kw_only=True)
class SimOptions:
    """The create options; only ``env`` has an effect."""

    name: str
    image: str
    env: dict[str, str]


class SimCookie(Cookie):
    """See `open_sim_driver`."""

    options: SimOptions

    def __init__(self, driver: SimDriver, task: ContainerTask) -> None:
        self._driver = driver
        self._task = task
        self._image: SimImage | None = None
        self._exists = False
        self.container: SimContainer | None = None
        self._closed = False
        self.options = SimOptions(name=task.id, image=task.image, env=dict(task.env))

    async def validate_image(self) -> bool:
        image = self._driver.images.get(self._task.image)
        if image is None:
            await trio.lowlevel.checkpoint()
            return True
        await self._stage("validate", image.validate_time)
        if not image.on_machine:
            return True
        if image.volumes:
            raise ImageWithVolume
        self._image = image
        self._note("validated")
        return False

    async def pull_image(self) -> None:
        name = self._task.image
        image = self._driver.images.get(name)
        if image is None:
            await trio.lowlevel.checkpoint()
            raise ImagePullFailed(404, f"Failed to pull image '{name}': no such image")
        await self._stage("pull", image.pull_time)
        image.on_machine = True
        self._note("pulled")

    async def create_container(self) -> None:
        image = self._validated()
        if self._exists:
            await trio.lowlevel.checkpoint()
            return
        # As in an engine, the container is there from the first moment of an interrupted create.
        self._driver.add(self._task.id, self)
        self._exists = True
        await self._stage("create", image.create_time)
        if not image.on_machine:
            raise ServerBusy
        self._note("created")

    async def run(self) -> RunningContainer:
        image = self._validated()
        if not self._exists or self.container is not None:
            raise HostlerError(f"container {self._task.id} can't be started in this state")
        await self._stage("start", image.start_time)
        self._driver.check_open()
        container = SimContainer(
            self._task, image, dict(self.options.env), partial(self._driver.note, image=image.name)
        )
        self.container = container
        self._note("started")
        self._driver.nursery.start_soon(container.main, name=f"sim container {self._task.id}")
        return container

    async def freeze(self) -> None:
        """Takes the image's ``freeze_time`` (seconds). Raises the fault of the stage ``freeze``,
        and `HostlerError` for a container that does not run."""
        container = self._alive()
        await self._stage("freeze", container.image.freeze_time)
        self._alive().freeze()
        self._note("frozen")

    async def unfreeze(self) -> None:
        container = self._alive()
        await self._stage("unfreeze", container.image.unfreeze_time)
        self._alive().unfreeze()
        self._note("thawed")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            return
        if self._exists:
            if self.container is not None:
                self.container.kill()
                await self.container.wait()
            await self._stage("remove", self._validated().remove_time)
            self._driver.remove(self._task.id)
            self._exists = False
            self._note("removed")
        self._closed = True
        self._driver.cookies.discard(self)

    def _validated(self) -> SimImage:
        if self._image is None:
            raise HostlerError(f"image {self._task.image!r} was not validated")
        return self._image

    def _alive(self) -> SimContainer:
        if self.container is None or self.container.state == "ended":
            raise HostlerError(f"container {self._task.id} is not running")
        return self.container

    def _note(self, kind: str) -> None:
        self._driver.note(kind, self._task.id, self._task.image)

    async def _stage(self, stage: Stage, seconds: float) -> None:
        await trio.sleep(seconds)
        await self._driver.fault(stage, self._task)
