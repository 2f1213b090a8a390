"""One container of the Docker driver, from its options to its removal."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio

from ...abc import ContainerTask, Cookie
from ...calls import DockerAuth
from ...errors import (
    APIError,
    HostlerError,
    ImagePullFailed,
    ImageWithVolume,
    ServerBusy,
    SyslogUnavailable,
)
from .auth import AuthConfig, CredentialsUnavailable, Keychain
from .containers import Containers
from .engine import NOT_FOUND, Engine, EngineError, EngineOperation, busy_if_away
from .images import ImageLease, Images, parse_image
from .metrics import DockerMetrics
from .networks import NetworkLease, Networks, may_change_its_name_space, needs_its_own
from .options import DockerOptions, DriverEnvironment, build_options
from .prefork import MadeImage, PoolPlan, PreforkImage, PreforkPool, PulledImage
from .pulls import ImagePuller, pull_backoff
from .running import DockerContainer, ExitWatcher, OutputCapture
from .stats import Sampled, Sampler

log = structlog.get_logger(__name__)

_SYSLOG_TROUBLE = "failed to initialize logging driver"
_BAD_REQUEST = 400
_BAD_SYSLOG = ("unsupported scheme", "stat /")
"""What the engine says of a syslog address that is no URL of a kind it knows, or a socket that
isn't there. It does not name the log driver."""
_NO_IMAGE = "no such image"
_NO_NAME_SPACE = ("cannot join network of", "no such container", "joining network namespace of")
"""What an engine says, in lower case, when the container whose name space was to be joined has
just ended."""


def _refuses_syslog(error: EngineError) -> bool:
    return error.status == _BAD_REQUEST and error.message.startswith(_BAD_SYSLOG)


@attrs.define(eq=False, kw_only=True)
class DriverContext:
    """What the cookies of one driver share."""

    engine: Engine
    containers: Containers
    nursery: trio.Nursery
    around: DriverEnvironment
    keychain: Keychain
    metrics: DockerMetrics
    pool: PoolPlan | None
    exits: ExitWatcher = attrs.field(init=False)
    sampler: Sampler = attrs.field(init=False)
    images: Images = attrs.field(init=False)
    puller: ImagePuller = attrs.field(init=False)
    prefork: PreforkPool | None = attrs.field(init=False)
    networks: Networks = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        engine, config, metrics = self.engine, self.around.config, self.metrics
        self.exits = ExitWatcher(engine, self.containers, metrics)
        self.sampler = Sampler(engine, self.containers.launches, metrics.sampled)
        self.images = Images(engine)
        self.puller = ImagePuller(engine, self.nursery, pull_backoff(config), metrics)
        self.prefork = self._prefork_pool(self.pool) if self.pool is not None else None
        self.networks = Networks(config.docker_networks, self.prefork)

    def _prefork_pool(self, plan: PoolPlan) -> PreforkPool:
        image: PreforkImage
        if plan.program:
            image = MadeImage(self.engine, plan)
        else:
            image = PulledImage(self.engine, plan, self.puller, self.keychain)
        return PreforkPool(image, self.around, self.containers, self.exits, self.metrics)


class DockerCookie(Cookie):
    """See `Cookie`. Beside what is said there, all methods may raise `EngineError`. The steps of
    a launch raise `ServerBusy` while the engine is away."""

    options: DockerOptions

    def __init__(self, task: ContainerTask, context: DriverContext) -> None:
        self._task = task
        self._shared = context
        self._lease: NetworkLease | None = None
        self._name = ""
        self._id = ""
        self._image: ImageLease | None = None
        self._unpin: Callable[[], None] | None = None
        self._output: OutputCapture | None = None
        self._running: DockerContainer | None = None
        self._sampled: Sampled | None = None
        self.options = build_options(task, context.around, self._allocate_network)

    def _allocate_network(self) -> str | None:
        self._lease = self._shared.networks.lease()
        return self._lease.mode if self._lease else None

    async def validate_image(self) -> bool:
        """Once the image is accepted, the cleaner leaves it alone until ``aclose``."""
        if self._image is not None:
            await trio.lowlevel.checkpoint()
            return False
        with busy_if_away():
            lease = await self._shared.images.lease(self._task.image)
        if lease is None:
            return True
        if lease.has_volumes and not self._shared.around.config.image_enable_volume:
            lease.release()
            raise ImageWithVolume()
        self._image = lease
        return False

    async def pull_image(self) -> None:
        if self._image is not None:
            await trio.lowlevel.checkpoint()
            return
        if self._unpin is None:
            # Or the cleaner might take the image before anybody could validate it.
            self._unpin = self._shared.images.cache.pin(self._task.image)
        await self._shared.puller.pull(self._task.image, await self._auth())

    async def _auth(self) -> AuthConfig:
        if self._task.registry_token:
            return {"registrytoken": self._task.registry_token}
        if self._task.docker_auth is not None:
            given = await self._given_auth(self._task.docker_auth)
            if given is not None:
                return given
        try:
            return await self._shared.keychain.lookup(parse_image(self._task.image).registry)
        except CredentialsUnavailable as error:
            text = f"Failed to pull image '{self._task.image}': no registry credentials"
            raise ImagePullFailed(None, text) from error

    async def _given_auth(self, auth: DockerAuth) -> AuthConfig | None:
        image = self._task.image
        try:
            found = await auth(image)
            return None if found is None else dict(found)
        except APIError:
            raise
        except Exception as error:
            log.exception("credentials of a call failed", image=image, fn_id=self._task.fn_id)
            text = f"Failed to pull image '{image}': no registry credentials"
            raise ImagePullFailed(None, text) from error

    async def create_container(self) -> None:
        """Cancelling it leaves the creation running; ``aclose`` removes what it makes."""
        if self._image is None:
            raise HostlerError("create_container() before validate_image() has accepted the image")
        if self._id:
            await trio.lowlevel.checkpoint()
            return
        self._join_prepared()
        self._name = self.options.name
        try:
            with busy_if_away():
                self._id = await self._shared.containers.create(self.options)
        except EngineError as error:
            if error.status == NOT_FOUND and _NO_IMAGE in error.message.lower():
                raise ServerBusy() from error
            if self._task.syslog_url and _refuses_syslog(error):
                raise SyslogUnavailable() from error
            self._raise_if_name_space_is_gone(error)
            raise

    def _join_prepared(self) -> None:
        """Take a name space that is ready, instead of the network that was chosen, unless a custom
        driver has chosen another one, or wants what only a name space of its own can have. Only
        now: until here an image may have been pulled, for minutes."""
        lease, options = self._lease, self.options
        if self._task.disable_net or (lease is not None and lease.prepared):
            return
        chosen = lease.mode if lease is not None else None
        hostname = self._shared.around.hostname
        if options.host_config.get("NetworkMode") != chosen or needs_its_own(options, hostname):
            return
        prepared = self._shared.networks.lease_prepared(lease)
        if prepared is not None:
            self._lease = prepared
            options.host_config["NetworkMode"] = prepared.mode
            options.config.pop("Hostname", None)  # the name space's

    async def run(self) -> DockerContainer:
        if not self._id:
            raise HostlerError("run() before create_container() has returned")
        exit_ = self._shared.exits.watch(self._id)
        if self._task.on_output is not None:
            self._output = OutputCapture(self._shared.engine, self._id, self._task.on_output)
            await self._shared.nursery.start(self._output.run)
        try:
            with busy_if_away():
                await self._shared.containers.start(self._name)
        except EngineError as error:
            if _SYSLOG_TROUBLE in error.message:
                raise SyslogUnavailable() from error
            self._raise_if_name_space_is_gone(error)
            raise
        self._running = DockerContainer(self._shared.engine, exit_, self._output)
        self._sampled = self._shared.sampler.add(self._id, self._task.on_sample)
        return self._running

    def _raise_if_name_space_is_gone(self, error: EngineError) -> None:
        """The call is not to blame for that, and may be tried again anywhere."""
        mode = str(self.options.host_config.get("NetworkMode", ""))
        text = error.message.lower()
        if mode.startswith("container:") and any(part in text for part in _NO_NAME_SPACE):
            raise ServerBusy() from error

    async def freeze(self) -> None:
        """Pauses the container (cgroup freezer). Waits for the engine, 5 s at most. Raises
        `EngineError`; after an `EngineTimeout`, or if it was cancelled, the container may be paused
        or not."""

        await self._shared.engine.call(EngineOperation.PAUSE, lambda client: client.pause(self._id))
        if self._sampled is not None:
            self._sampled.frozen = True

    async def unfreeze(self) -> None:
        await self._shared.engine.call(
            EngineOperation.UNPAUSE, lambda client: client.unpause(self._id)
        )
        if self._sampled is not None:
            self._sampled.frozen = False

    async def aclose(self) -> None:
        """Cancelling it leaves the removal running. Raises `EngineError` if the container could
        not be removed; the driver tries again when the engine is there again, and when it is
        closed."""
        gone = not self._name
        self._count_exit()
        try:
            if self._name:
                await self._shared.containers.remove(self._name)
                gone = True
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._release(gone)

    def _count_exit(self) -> None:
        if self._running is not None:
            self._shared.metrics.container_exited(self._running.exit_status)
            self._running = None
            self._shared.sampler.remove(self._id)

    def _release(self, gone: bool) -> None:
        if self._output is not None:
            self._output.close()
        if self._id:
            self._shared.exits.forget(self._id)
        if self._lease is not None:
            as_it_was = not self._id or not may_change_its_name_space(self.options)
            self._lease.release(gone and as_it_was)
            self._lease = None
        if self._image is not None:
            self._image.release()
        if self._unpin is not None:
            self._unpin()
            self._unpin = None
