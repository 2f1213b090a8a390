"""The Docker driver."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial

import attrs
import structlog
import trio

from ..._concurrency.drain import Grace
from ..._concurrency.nurseries import open_sheltered
from ...abc import ContainerTask, Driver
from ...config import AgentConfig
from ._cleaner import ImageCleaner, ImageStatistics
from ._cookie import DockerCookie, Workshop
from ._credentials import load_credentials
from ._engine import THREAD_GRACE, Engine, open_engine
from ._home import find_home
from ._image_cache import ImagesInUse
from ._instance import living, neighbourhood
from ._keychain import Keychain
from ._limits import Operation
from ._metrics import DockerMetrics, Levels, default_docker_metrics
from ._neighbours import ImageNews, Neighbours
from ._options import LABEL_CLASSIFIER, Surroundings
from ._prefork import PreforkStatistics
from ._prefork_plan import plan_pool
from ._retry import Backoff, RetryChecker
from ._startup import check_version, load_images, remove_homeless, remove_leaked, source_exists

log = structlog.get_logger(__name__)

CLOSE_GRACE = 30.0
"""Seconds in which the driver removes what cookies have left behind, when it is closed."""


@attrs.frozen(kw_only=True)
class DockerStatistics:
    """A moment of a driver: containers that exist or may exist, containers watched for their
    end, threads that wait for the engine (one follows its events), containers by network, and
    the pool of network name spaces."""

    containers: int
    watched: int
    threads: int
    networks: Mapping[str, int]
    images: ImageStatistics | None = None
    prefork: PreforkStatistics = attrs.Factory(PreforkStatistics)


class DockerDriver(Driver):
    """Runs functions in Docker containers. Made by `open_docker_driver`."""

    def __init__(self, workshop: Workshop, cleaner: ImageCleaner | None) -> None:
        self._shop = workshop
        self._cleaner = cleaner
        self._clean = trio.Event()

    @property
    def instance_id(self) -> str:
        """Tells this driver's containers from those of earlier ones with the same label tag."""
        return self._shop.around.instance_id

    async def create_cookie(self, task: ContainerTask) -> DockerCookie:
        await trio.lowlevel.checkpoint()
        return DockerCookie(task, self._shop)

    def set_pull_retry_policy(self, backoff: Backoff, checker: RetryChecker) -> None:
        """Try failed pulls again: ``checker`` says which errors, ``backoff`` when and how often.
        Replaces `transient_trouble` and the delays of the configuration; applies to pulls that
        start from now on."""
        self._shop.puller.set_retry_policy(backoff, checker)

    def images_in_use(self) -> ImagesInUse:
        """For neighbours."""
        return self._shop.images.cache.busy()

    def heard_used(self, ids: Iterable[str]) -> None:
        """A neighbour has told (`Neighbours.tell_used`)."""
        if self._cleaner is not None:
            self._cleaner.heard(ids)

    def statistics(self) -> DockerStatistics:
        pool = self._shop.prefork
        return DockerStatistics(
            containers=len(self._shop.containers.owned),
            watched=self._shop.exits.watched(),
            threads=self._shop.engine.threads(),
            networks=self._shop.networks.in_use(),
            images=None if self._cleaner is None else self._cleaner.statistics(),
            prefork=pool.statistics() if pool else PreforkStatistics(),
        )

    async def sees_directory(self, path: str) -> bool:
        """Asks the engine without making anything: it looks at mounts before it looks for the
        image; one that does not, as another path shows, is not believed."""
        seen = partial(source_exists, self._shop.engine)
        return await seen(path) and not await seen(f"{path}.none")

    async def wait_clean(self) -> None:
        await self._clean.wait()

    async def _clean_up(self, labels: Mapping[str, str]) -> None:
        await remove_leaked(self._shop.engine, self._shop.containers.launches, labels)
        self._clean.set()

    async def aclose(self) -> None:
        """Try once more to remove the containers that cookies could not remove. Idempotent."""
        if self._shop.prefork is not None:
            await self._shop.prefork.aclose()
        await self._shop.containers.remove_all()


@asynccontextmanager
async def open_docker_driver(
    config: AgentConfig,
    *,
    environ: Mapping[str, str] | None = None,
    instance_id: str = "",
    limits: Mapping[Operation, float] | None = None,
    metrics: DockerMetrics | None = None,
    neighbours: Neighbours | None = None,
    grace: Grace | None = None,
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
    environ = os.environ if environ is None else environ
    credentials = await trio.to_thread.run_sync(load_credentials, config.docker_auth, environ)
    metrics = default_docker_metrics() if metrics is None else metrics
    engine = await open_engine(environ, limits, metrics.call_ended)
    locked = ExitStack()
    try:
        await _prepare(engine, config)
        pool = await plan_pool(engine, config)
        around = Surroundings(
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
            shop = Workshop(engine, operations, nursery, around, keychain, metrics, pool)
            driver = _start(shop, neighbours)
            try:
                labels, of_pool = around.labels(), around.pool_labels()
                launches = shop.containers.launches
                nursery.start_soon(remove_homeless, engine, launches, around.home)
                if of_pool.get(LABEL_CLASSIFIER) not in (None, labels.get(LABEL_CLASSIFIER)):
                    nursery.start_soon(
                        partial(remove_leaked, engine, launches, of_pool, may_share=True)
                    )
                if labels:
                    nursery.start_soon(driver._clean_up, labels)
                else:
                    driver._clean.set()
                with _announced(driver, around, metrics):
                    yield driver
            finally:
                until = trio.current_time() + CLOSE_GRACE
                if grace is not None:
                    until = min(until, grace.end() - min(THREAD_GRACE, grace.removal / 4))
                # The deadline holds even if the engine hangs, since its threads are left behind.
                with trio.CancelScope(shield=True, deadline=until):
                    await driver.aclose()
                shop.containers.tell_left(labeled=bool(around.labels()))
    finally:
        locked.close()
        await engine.aclose()


@contextmanager
def _announced(
    driver: DockerDriver, around: Surroundings, metrics: DockerMetrics
) -> Iterator[None]:
    """Show the driver's levels in the block."""

    def levels() -> Levels:
        now = driver.statistics()
        return Levels(
            prefork_size=now.prefork.size,
            prefork_free=now.prefork.free,
            networks=dict(now.networks),
            images=now.images or ImageStatistics(),
        )

    with metrics.showing(around.instance_id, levels):
        yield


def _start(shop: Workshop, neighbours: Neighbours | None) -> DockerDriver:
    shop.nursery.start_soon(shop.exits.run)
    shop.nursery.start_soon(shop.sampler.run)
    if shop.prefork is not None:
        shop.nursery.start_soon(shop.prefork.run)
    cleaner: ImageCleaner | None = None
    if shop.around.config.image_clean_max_size:
        if neighbours is not None and neighbours.clean:
            shop.nursery.start_soon(ImageNews(shop.images, neighbours).run)
        else:
            cleaner = _make_cleaner(shop, neighbours)
            shop.nursery.start_soon(cleaner.run)
    return DockerDriver(shop, cleaner)


def _make_cleaner(shop: Workshop, neighbours: Neighbours | None) -> ImageCleaner:
    config = shop.around.config
    exempt = [*config.image_clean_exempt_tags]
    if shop.prefork is not None:
        exempt.append(shop.prefork.plan.image)
    limit = config.image_clean_max_size
    return ImageCleaner(shop.engine, shop.images, limit, exempt, neighbours)


def _neighbourhood() -> str:
    try:
        return neighbourhood()
    except OSError as error:
        log.info("no containers of dead runners are looked for", reason=str(error))
        return ""


async def _prepare(engine: Engine, config: AgentConfig) -> None:
    await check_version(engine, config.min_docker_version)
    if config.docker_load_file:
        await load_images(engine, config.docker_load_file)
