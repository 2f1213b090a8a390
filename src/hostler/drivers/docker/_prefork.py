"""Network name spaces that are ready before a function needs one.

Most of the time that an engine takes to start a container goes into its network. So a fixed number
of idle containers is kept, and function containers join the network name space of one of them
(``NetworkMode: container:<id>``). One keeper task for each of them sees to it that it exists.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping

import attrs
import structlog
import trio

from ...errors import APIError
from ._containers import Containers
from ._errors import EngineError
from ._exits import Exit, ExitWatcher
from ._options import DockerOptions
from ._pace import Pace
from ._prefork_image import PreforkImage
from ._prefork_plan import PoolPlan
from ._retry import FOREVER, Backoff

log = structlog.get_logger(__name__)

STARTS_PER_SECOND = 10
START_BURST = 20
"""Containers that are made, for all keepers together (Fn's numbers)."""
RETRY = Backoff(max_retries=FOREVER, interval_msec=100, min_delay_msec=100, max_delay_msec=10_000)
"""Between the attempts of one keeper, when they fail one after the other."""
MAKERS = 2
"""Containers that are made at a time, so that calls which come meanwhile get at their own."""
STABLE_LIFE = 5.0
"""Seconds after which a container that ends has not failed: it is replaced without delay."""
WARNING_INTERVAL = 60.0
"""Seconds between two warnings that the pool is empty."""


@attrs.frozen(kw_only=True)
class PreforkStatistics:
    """A moment of the pool: its configured ``size``, what is ``free``, what functions ``used``
    have, and how often there was none (``misses``, since the start)."""

    size: int = 0
    free: int = 0
    used: int = 0
    misses: int = 0


class PreforkPool:
    """See the module. ``allocate`` and ``free`` are synchronous."""

    def __init__(
        self,
        plan: PoolPlan,
        labels: Mapping[str, str],
        hostname: str,
        image: PreforkImage,
        containers: Containers,
        exits: ExitWatcher,
        on_miss: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self._labels = labels
        self._hostname = hostname
        self._image = image
        self._containers = containers
        self._exits = exits
        self._on_miss = on_miss
        self._names = secrets.token_hex(8)
        # Names of containers are the engine's; ours must not meet those of another pool.
        self._free: list[str] = []
        self._used: set[str] = set()
        self._misses = 0
        self._warn_again = 0.0
        self._pace = Pace(STARTS_PER_SECOND, START_BURST)
        self._makers = trio.CapacityLimiter(MAKERS)
        self._failing: set[int] = set()
        """Keepers whose containers fail: of several that do there is one warning."""
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    # --- for cookies ---

    def allocate(self) -> str | None:
        """The id of the container whose name space was given back last, or ``None`` if all are in
        use or not yet made; of a pool that was asked for with a warning, not more than one in
        `WARNING_INTERVAL`."""
        if self._free:
            container_id = self._free.pop()
            self._used.add(container_id)
            return container_id
        self._misses += 1
        self._on_miss()
        if self.plan.wanted and trio.current_time() >= self._warn_again:
            self._warn_again = trio.current_time() + WARNING_INTERVAL
            log.warning(
                "prefork pool is empty, containers get a network of their own",
                size=self.plan.size,
                misses=self._misses,
            )
        return None

    def free(self, container_id: str, reusable: bool = True) -> None:
        """Give back what ``allocate`` returned; anything else, and what has ended meanwhile, is
        ignored. Not ``reusable`` = somebody may still be in the name space, so that it is
        replaced, as all are in use-once mode."""
        if container_id not in self._used:
            return
        self._used.discard(container_id)
        if reusable and not self.plan.use_once:
            self._free.append(container_id)
        else:
            self._exits.forget(container_id)  # which tells its keeper that it has ended

    def statistics(self) -> PreforkStatistics:
        return PreforkStatistics(
            size=self.plan.size,
            free=len(self._free),
            used=len(self._used),
            misses=self._misses,
        )

    # --- the keepers ---

    async def run(self) -> None:
        """Keep the containers until ``aclose``."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for index in range(self.plan.size):
                        nursery.start_soon(self._keep, index)
        finally:
            self._free.clear()
            self._used.clear()
            self._over.set()

    async def aclose(self) -> None:
        """Stop the keepers; after that `Containers.remove_all` finds every container. Idempotent.
        Nothing may be in use any more. Only after ``run`` was started."""
        self._scope.cancel()
        await self._over.wait()

    async def _keep(self, index: int) -> None:
        name = f"{index}_prefork_{self._names}"
        delays: Iterator[float] | None = None
        while True:
            await self._image.ensure()
            await self._pace.wait()
            began = trio.current_time()
            try:
                async with self._makers:
                    began = trio.current_time()
                    exit_ = await self._make(index, name)
                trouble = await self._live(exit_)
            except (EngineError, APIError) as error:
                trouble = str(error)
                if "no such image" in trouble.lower():
                    self._image.vanished()
            if not trouble or trio.current_time() - began > STABLE_LIFE:
                delays = None
                self._failing.discard(index)
                continue
            if delays is None:
                delays = RETRY.delays()
                if not self._failing:
                    log.warning("prefork container fails, will try again", name=name, error=trouble)
                self._failing.add(index)
            await trio.sleep(next(delays))

    async def _make(self, index: int, name: str) -> Exit:
        """A container that runs, in the place of the one before it; returns its watched end."""
        await self._containers.remove(name)
        container_id = await self._containers.create(self._options(index, name))
        exit_ = self._exits.watch(container_id)
        try:
            await self._containers.start(name)
        except BaseException:
            self._exits.forget(container_id)
            raise
        return exit_

    async def _live(self, exit_: Exit) -> str:
        """Offer a container until its end; returns what was wrong with that."""
        container_id = exit_.container_id
        try:
            self._free.append(container_id)
            await exit_.ended.wait()
            return "" if self._replaced(exit_) else "it has ended by itself"
        finally:
            self._exits.forget(container_id)
            self._used.discard(container_id)
            if container_id in self._free:
                self._free.remove(container_id)

    def _replaced(self, exit_: Exit) -> bool:
        return exit_.container_id not in self._used and exit_.container_id not in self._free

    def _options(self, index: int, name: str) -> DockerOptions:
        options = DockerOptions(name=name)
        options.config["Image"] = self.plan.image
        # Of the functions that join, too, so that they see the same one as without a pool.
        options.config["Hostname"] = self._hostname
        options.config["Cmd"] = list(self.plan.command)
        options.host_config["LogConfig"] = {"Type": "none"}
        if self.plan.program:
            options.config["User"] = "65534:65534"
            options.host_config.update(ReadonlyRootfs=True, CapDrop=["all"])
            options.host_config["SecurityOpt"] = ["no-new-privileges"]
        if networks := self.plan.networks:
            options.host_config["NetworkMode"] = networks[index % len(networks)]
        if self._labels:
            options.config["Labels"] = dict(self._labels)
        return options
