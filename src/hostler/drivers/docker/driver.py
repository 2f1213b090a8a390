"""Docker driver: opening, start-up checks, cleaning up after dead instances, closing."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker
import structlog
import trio

from ..._arguments import check
from ..._concurrency.drain import DrainBudget
from ..._concurrency.nurseries import open_sheltered
from ..._concurrency.signal import IdleGate
from ...abc import ContainerTask, Driver
from ...config import AgentConfig
from ...errors import ConfigError
from .auth import Keychain, load_credentials
from .build import load_archive
from .containers import Containers, remove_container
from .cookie import DockerCookie, DriverContext
from .engine import (
    DOCKER,
    NOT_FOUND,
    THREAD_GRACE,
    Engine,
    EngineError,
    EngineOperation,
    EngineTooOld,
    open_engine,
)
from .image_cleaner import ImageCleaner, ImageUseBroadcast, PeerDrivers
from .images import ImagesInUse
from .instance import family_of, find_home, is_inhabited, is_living, living, neighbourhood
from .metrics import (
    DockerMetrics,
    DockerStatistics,
    PreforkStatistics,
    default_docker_metrics,
)
from .options import LABEL_CLASSIFIER, LABEL_HOME, LABEL_INSTANCE, DriverEnvironment
from .prefork import plan_pool
from .pulls import Backoff, RetryChecker

log = structlog.get_logger(__name__)

CLOSE_GRACE = 30.0
"""Seconds in which the driver removes what cookies have left behind, when it is closed."""

SECOND_LOOK = 5.0
"""Seconds from the end of the clean-up until the driver looks for leaked containers once more."""


class DockerDriver(Driver):
    """Runs functions in Docker containers. Made by `open_docker_driver`."""

    def __init__(self, context: DriverContext, cleaner: ImageCleaner | None) -> None:
        self._shared = context
        self._cleaner = cleaner
        self._clean = trio.Event()

    @property
    def instance_id(self) -> str:
        """Tells this driver's containers from those of earlier ones with the same label tag."""
        return self._shared.around.instance_id

    async def create_cookie(self, task: ContainerTask) -> DockerCookie:
        await trio.lowlevel.checkpoint()
        return DockerCookie(task, self._shared)

    def set_pull_retry_policy(self, backoff: Backoff, checker: RetryChecker) -> None:
        """Try failed pulls again: ``checker`` says which errors, ``backoff`` when and how often.
        Replaces `transient_trouble` and the delays of the configuration; applies to pulls that
        start from now on."""
        self._shared.puller.set_retry_policy(backoff, checker)

    def images_in_use(self) -> ImagesInUse:
        """For neighbours."""
        return self._shared.images.cache.busy()

    def heard_used(self, ids: Iterable[str]) -> None:
        """A neighbour has told (`PeerDrivers.tell_used`)."""
        if self._cleaner is not None:
            self._cleaner.heard(ids)

    def statistics(self) -> DockerStatistics:
        """What the driver has now, from its own memory: asks no engine. Synchronous."""
        pool = self._shared.prefork
        return DockerStatistics(
            containers=len(self._shared.containers.owned),
            watched=self._shared.exits.watched(),
            threads=self._shared.engine.threads(),
            networks=self._shared.networks.in_use(),
            images=None if self._cleaner is None else self._cleaner.statistics(),
            prefork=PreforkStatistics() if pool is None else pool.statistics(),
        )

    async def sees_directory(self, path: str) -> bool:
        """Asks the engine without making anything: it looks at mounts before it looks for the
        image; one that does not, as another path shows, is not believed."""
        seen = partial(source_exists, self._shared.engine)
        return await seen(path) and not await seen(f"{path}.none")

    async def wait_clean(self) -> None:
        await self._clean.wait()

    async def _clean_up(self, labels: Mapping[str, str]) -> None:
        engine, launches = self._shared.engine, self._shared.containers.launches
        await remove_leaked(engine, launches, labels)
        self._clean.set()
        # For what the engine was still making for a runner when that was killed.
        await trio.sleep(SECOND_LOOK)
        await remove_leaked(engine, launches, labels, may_share=True)

    async def aclose(self) -> None:
        """Try once more to remove the containers that cookies could not remove. Idempotent."""
        if self._shared.prefork is not None:
            await self._shared.prefork.aclose()
        await self._shared.containers.remove_all()


@asynccontextmanager
async def open_docker_driver(
    config: AgentConfig,
    *,
    environ: Mapping[str, str] | None = None,
    instance_id: str = "",
    limits: Mapping[EngineOperation, float] | None = None,
    metrics: DockerMetrics | None = None,
    neighbours: PeerDrivers | None = None,
    grace: DrainBudget | None = None,
) -> AsyncIterator[DockerDriver]:
    """Connect to the engine and open a driver on it.

    ``environ`` (default: the process's) names the engine by ``DOCKER_HOST``,
    ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``, and Docker's configuration file.
    ``instance_id`` (default: random) labels the containers if ``config.container_label_tag`` is
    set; then the containers are removed, in the background, that other instances with this tag have
    left, unless they live on this machine, which is worth a warning if their id is not the same up
    to a dot (`DockerDriver.wait_clean`). Without a tag that is done for containers that only hold
    a network name space, and always for those of drivers that lived in containers which have ended.
    ``limits`` replaces seconds of `LIMITS`. ``metrics`` are the process's own by default.
    ``neighbours`` are drivers on the same engine, among which one cleans its images.

    Raises `EngineError` if the engine can't be reached or does not load
    ``config.docker_load_file``, `EngineTooOld`, and `ConfigError`. Leaving the block, also by a
    cancellation, closes the driver within `CLOSE_GRACE` and before the end of ``grace``; all
    cookies must have been closed. What is not removed by then is named in one line of the log.
    """
    check("open_docker_driver", config=(config, AgentConfig))
    check("open_docker_driver", optional=True, metrics=(metrics, DockerMetrics))
    environ = os.environ if environ is None else environ
    credentials = await trio.to_thread.run_sync(load_credentials, config.docker_auth, environ)
    metrics = default_docker_metrics() if metrics is None else metrics
    engine = await open_engine(environ, limits, metrics.call_ended)
    locked = ExitStack()
    try:
        await _prepare(engine, config)
        pool = await plan_pool(engine, config)
        around = DriverEnvironment(
            config=config,
            instance_id=instance_id or uuid.uuid4().hex,
            hostname=socket.gethostname(),
            api_version=tuple(int(number) for number in engine.api_version.split(".")),
            neighbourhood=_neighbourhood(),
            home=await find_home(engine),
        )
        if LABEL_CLASSIFIER in around.pool_labels():
            locked.enter_context(living(around.instance_id))
        # The agent closes its containers, and the driver what is left, also in a program that is
        # cancelled; and operations go on if something else of the driver fails.
        async with open_sheltered() as operations, open_sheltered() as nursery:
            keychain = Keychain(credentials, environ, nursery)
            context = DriverContext(
                engine=engine,
                containers=Containers(engine, operations),
                nursery=nursery,
                around=around,
                keychain=keychain,
                metrics=metrics,
                pool=pool,
            )
            driver = _start(context, neighbours)
            try:
                labels, of_pool = around.labels(), around.pool_labels()
                launches = context.containers.launches
                nursery.start_soon(remove_homeless, engine, launches, around.home)
                if of_pool.get(LABEL_CLASSIFIER) not in (None, labels.get(LABEL_CLASSIFIER)):
                    nursery.start_soon(
                        partial(remove_leaked, engine, launches, of_pool, may_share=True)
                    )
                if labels:
                    nursery.start_soon(driver._clean_up, labels)
                else:
                    driver._clean.set()
                with metrics.showing(around.instance_id, driver.statistics):
                    yield driver
            finally:
                until = trio.current_time() + CLOSE_GRACE
                if grace is not None:
                    until = min(until, grace.end() - min(THREAD_GRACE, grace.removal / 4))
                # The deadline holds even if the engine hangs, since its threads are left behind.
                with trio.CancelScope(shield=True, deadline=until):
                    await driver.aclose()
                context.containers.tell_left(labeled=bool(around.labels()))
    finally:
        locked.close()
        await engine.aclose()


def _start(context: DriverContext, neighbours: PeerDrivers | None) -> DockerDriver:
    context.nursery.start_soon(context.exits.run)
    context.nursery.start_soon(context.sampler.run)
    if context.prefork is not None:
        context.nursery.start_soon(context.prefork.run)
    cleaner: ImageCleaner | None = None
    if context.around.config.image_clean_max_size:
        if neighbours is not None and neighbours.clean:
            context.nursery.start_soon(ImageUseBroadcast(context.images, neighbours).run)
        else:
            cleaner = _make_cleaner(context, neighbours)
            context.nursery.start_soon(cleaner.run)
    return DockerDriver(context, cleaner)


def _make_cleaner(context: DriverContext, neighbours: PeerDrivers | None) -> ImageCleaner:
    config = context.around.config
    exempt = [*config.image_clean_exempt_tags]
    if context.prefork is not None:
        exempt.append(context.prefork.plan.image)
    limit = config.image_clean_max_size
    return ImageCleaner(context.engine, context.images, limit, exempt, neighbours)


def _neighbourhood() -> str:
    try:
        return neighbourhood()
    except OSError as error:
        log.info("no containers of dead runners are looked for", reason=str(error))
        return ""


async def _prepare(engine: Engine, config: AgentConfig) -> None:
    if engine.name == DOCKER:
        check_version(engine.version, config.min_docker_version)
    else:
        check_api_version(engine)
    if config.docker_load_file:
        await load_archive(engine, Path(config.docker_load_file))
        log.info("images loaded", path=config.docker_load_file)


RETRY_DELAY = 0.5
"""Seconds between two attempts to list leaked containers (Fn's limit of twice a second)."""

REMOVALS = 2
"""Leaked containers that are removed at the same time: calls come meanwhile."""

WAY_SECONDS = 2.0
"""How long each of these removals makes way for launches at most."""


def check_version(version: str, minimum: str) -> None:
    """Raises `EngineTooOld` if the engine's ``version`` is below ``minimum``."""
    if version_numbers(version) < version_numbers(minimum):
        raise EngineTooOld(f"Docker engine {version} is too old, {minimum} is the minimum")


MIN_API = (1, 33)
"""Version of Docker's API that an engine of another kind must speak: that of Docker 17.10."""


def check_api_version(engine: Engine) -> None:
    """Raises `EngineTooOld`: an engine such as Podman counts its own versions otherwise."""
    if version_numbers(engine.api_version)[:2] < MIN_API:
        raise EngineTooOld(
            f"{engine.name} {engine.version} speaks version {engine.api_version} of Docker's API, "
            f"{MIN_API[0]}.{MIN_API[1]} is the minimum"
        )


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
        await engine.call(EngineOperation.CREATE, request)
    except EngineError as error:
        return error.status == NOT_FOUND
    return False


async def remove_leaked(
    engine: Engine, launches: IdleGate, labels: Mapping[str, str], *, may_share: bool = False
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


async def remove_homeless(engine: Engine, launches: IdleGate, home: str) -> None:
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


async def _remove(engine: Engine, launches: IdleGate, names: Iterable[str]) -> None:
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
            return await engine.call(EngineOperation.LIST, request)
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
