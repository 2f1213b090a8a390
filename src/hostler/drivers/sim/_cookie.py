"""One simulated container from its options to its removal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from hostler.abc import ContainerTask, Cookie, RunningContainer
from hostler.errors import HostlerError, ImagePullFailed, ImageWithVolume, ServerBusy

from ._container import SimContainer
from ._image import SimImage, Stage

if TYPE_CHECKING:
    from ._driver import SimDriver


@attrs.define(kw_only=True)
class SimOptions:
    """The create options. Sizes and the rest are as in the task; only ``env`` has an effect."""

    name: str
    image: str
    env: dict[str, str]
    memory: int = 0
    cpus: int = 0


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
        self.options = SimOptions(
            name=task.id,
            image=task.image,
            env=dict(task.env),
            memory=task.memory,
            cpus=task.cpus,
        )

    def __repr__(self) -> str:
        return f"<SimCookie {self._task.id} exists={self._exists} container={self.container!r}>"

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
