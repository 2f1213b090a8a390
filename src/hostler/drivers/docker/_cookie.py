"""One container of the Docker driver, from its options to its removal."""

from __future__ import annotations

from typing import Any

import docker
import trio

from ...abc import ContainerTask, Cookie
from ...errors import HostlerError, ImageWithVolume, ServerBusy, SyslogUnavailable
from ._containers import Containers
from ._credentials import AuthConfig, Credentials
from ._engine import Engine
from ._errors import EngineError
from ._exits import ExitWatcher
from ._limits import Operation
from ._networks import Lease, Networks
from ._options import DockerOptions, Surroundings, build_options
from ._output import OutputCapture
from ._prefork import PreforkPool
from ._prefork_image import PreforkImage
from ._pull import ImagePuller
from ._reference import parse_image
from ._running import DockerContainer

_NOT_FOUND = 404
_SYSLOG_TROUBLE = "failed to initialize logging driver"
_NO_IMAGE = "no such image"
_NO_NAME_SPACE = ("cannot join network of", "no such container", "joining network namespace of")
"""What an engine says, in lower case, when the container whose name space was to be joined has
just ended."""


class Workshop:
    """What the cookies of one driver share."""

    def __init__(
        self,
        engine: Engine,
        nursery: trio.Nursery,
        around: Surroundings,
        credentials: Credentials,
    ) -> None:
        self.engine = engine
        self.nursery = nursery
        self.around = around
        self.credentials = credentials
        self.containers = Containers(engine, nursery)
        self.exits = ExitWatcher(engine)
        self.puller = ImagePuller(engine, nursery)
        self.prefork = self._prefork_pool()
        self.networks = Networks(around.config.docker_networks, self.prefork)

    def _prefork_pool(self) -> PreforkPool | None:
        config = self.around.config
        if not config.experimental_prefork_pool_size:
            return None
        image = PreforkImage(
            config.experimental_prefork_image, self.engine, self.puller, self.credentials
        )
        labels = self.around.labels()
        return PreforkPool(config, labels, image, self.containers, self.exits)


class DockerCookie(Cookie):
    """See `Cookie`. Beside what is said there, all methods may raise `EngineError`."""

    options: DockerOptions

    def __init__(self, task: ContainerTask, workshop: Workshop) -> None:
        self._task = task
        self._shop = workshop
        self._lease: Lease | None = None
        self._name = ""
        self._id = ""
        self._image_known = False
        self._output: OutputCapture | None = None
        self.options = build_options(task, workshop.around, self._allocate_network)

    def _allocate_network(self) -> str | None:
        self._lease = self._shop.networks.lease()
        return self._lease.mode if self._lease else None

    async def validate_image(self) -> bool:
        if self._image_known:
            await trio.lowlevel.checkpoint()
            return False

        def request(client: docker.APIClient) -> dict[str, Any]:
            image: dict[str, Any] = client.inspect_image(self._task.image)  # type: ignore[no-untyped-call]  # the stubs lack its types
            return image

        try:
            image = await self._shop.engine.call(Operation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status == _NOT_FOUND:
                return True
            raise
        volumes = (image.get("Config") or {}).get("Volumes")
        if volumes and not self._shop.around.config.image_enable_volume:
            raise ImageWithVolume()
        self._image_known = True
        return False

    async def pull_image(self) -> None:
        if self._image_known:
            await trio.lowlevel.checkpoint()
            return
        await self._shop.puller.pull(self._task.image, self._auth())

    def _auth(self) -> AuthConfig:
        if self._task.registry_token:
            return {"registrytoken": self._task.registry_token}
        return self._shop.credentials.lookup(parse_image(self._task.image).registry)

    async def create_container(self) -> None:
        """Cancelling it leaves the creation running; ``aclose`` removes what it makes."""
        if not self._image_known:
            raise HostlerError("create_container() before validate_image() has accepted the image")
        if self._id:
            await trio.lowlevel.checkpoint()
            return
        self._name = self.options.name
        try:
            self._id = await self._shop.containers.create(self.options)
        except EngineError as error:
            if error.status == _NOT_FOUND and _NO_IMAGE in error.message.lower():
                raise ServerBusy() from error
            self._raise_if_name_space_is_gone(error)
            raise

    async def run(self) -> DockerContainer:
        if not self._id:
            raise HostlerError("run() before create_container() has returned")
        exit_ = self._shop.exits.watch(self._id)
        if self._task.on_output is not None:
            self._output = OutputCapture(self._shop.engine, self._id, self._task.on_output)
            await self._shop.nursery.start(self._output.run)
        try:
            await self._shop.containers.start(self._name)
        except EngineError as error:
            if _SYSLOG_TROUBLE in error.message:
                raise SyslogUnavailable() from error
            self._raise_if_name_space_is_gone(error)
            raise
        return DockerContainer(self._shop.engine, exit_, self._output)

    def _raise_if_name_space_is_gone(self, error: EngineError) -> None:
        """The call is not to blame for that, and may be tried again anywhere."""
        mode = str(self.options.host_config.get("NetworkMode", ""))
        text = error.message.lower()
        if mode.startswith("container:") and any(part in text for part in _NO_NAME_SPACE):
            raise ServerBusy() from error

    async def freeze(self) -> None:
        def request(client: docker.APIClient) -> None:
            client.pause(self._id)

        await self._shop.engine.call(Operation.PAUSE, request)

    async def unfreeze(self) -> None:
        def request(client: docker.APIClient) -> None:
            client.unpause(self._id)

        await self._shop.engine.call(Operation.UNPAUSE, request)

    async def aclose(self) -> None:
        """Cancelling it leaves the removal running. Raises `EngineError` if the container could
        not be removed; the driver tries again when it is closed."""
        gone = not self._name
        try:
            if self._name:
                await self._shop.containers.remove(self._name)
                gone = True
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._release(gone)

    def _release(self, gone: bool) -> None:
        if self._output is not None:
            self._output.close()
        if self._id:
            self._shop.exits.forget(self._id)
        if self._lease is not None:
            self._lease.release(gone)
            self._lease = None
