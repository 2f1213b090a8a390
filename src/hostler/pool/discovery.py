"""Runner discovery: pools that follow the changes of their targets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from .._arguments import all_of, check
from .._concurrency.nurseries import open_background
from ..config import PoolConfig
from .dynamic import DynamicPool, open_dynamic_pool
from .health import PoolMetrics
from .static import RunnerAccess
from .targets import (
    FixedTarget,
    LookupFailed,
    NameTarget,
    ResolvedTarget,
    ServiceTarget,
    Target,
    parse_targets,
)

if TYPE_CHECKING:
    from .dns import Resolver

log = structlog.get_logger(__name__)

JITTER = (0.8, 1.0)
"""Range of a random factor on the seconds that an answer holds. It is at most 1, so that answers
are not used for longer, and spreads the look-ups of load balancers."""


class Discovery:
    """Looks targets up, one task for each target that is a name. ``resolver`` is needed only for
    these."""

    def __init__(
        self,
        pool: DynamicPool,
        targets: Sequence[Target],
        resolver: Resolver | None,
        config: PoolConfig,
        rng: random.Random,
    ) -> None:
        self._pool = pool
        self._targets = targets
        self._resolver = resolver
        self._config = config
        self._rng = rng
        self._found: dict[Target, Mapping[str, str]] = {
            target: {target.address: ""} for target in targets if isinstance(target, FixedTarget)
        }
        self._hurry = trio.Event()

    def __repr__(self) -> str:
        return f"<Discovery targets={len(self._targets)} found={len(self._found)}>"

    async def start(self, nursery: trio.Nursery) -> None:
        """Look up all targets once, then go on in ``nursery``. Raises nothing of its own."""
        self._pool.on_unreachable = self._look_soon
        self._assign()
        async with trio.open_nursery() as first:
            for target in self._targets:
                if not isinstance(target, FixedTarget):
                    first.start_soon(nursery.start, self._follow, target)

    def _look_soon(self) -> None:
        self._hurry.set()
        self._hurry = trio.Event()

    async def _follow(
        self,
        target: NameTarget | ServiceTarget,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        assert self._resolver is not None
        pause = self._config.dns_min_interval
        trouble = ""
        started = False
        while True:
            self._pool.metrics.lookups.inc()
            try:
                found = await self._resolver.find(target)
            except LookupFailed as error:
                self._pool.metrics.lookup_failures.inc()
                trouble = self._tell(target, trouble, str(error))
                pause = min(pause * 2, self._config.dns_max_interval)
            else:
                trouble = self._tell(target, trouble, "")
                pause = self._take(target, found)
            if not started:
                started = True
                task_status.started()
            await self._wait(max(pause * self._rng.uniform(*JITTER), self._config.dns_min_interval))

    def _take(self, target: Target, found: ResolvedTarget) -> float:
        """Use an answer. Returns the seconds until the next look-up."""
        if self._found.get(target) != found.names:
            self._found[target] = found.names
            self._assign()
        config = self._config
        return min(max(found.ttl, config.dns_min_interval), config.dns_max_interval)

    def _assign(self) -> None:
        names: dict[str, str] = {}
        for target in self._targets:
            for address, name in self._found.get(target, {}).items():
                names.setdefault(address, name)
        self._pool.assign(names)

    async def _wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until there is a reason to hurry, but at least for the shortest
        pause."""
        least = self._config.dns_min_interval
        await trio.sleep(least)
        with trio.move_on_after(seconds - least):
            await self._hurry.wait()

    def _tell(self, target: Target, before: str, now: str) -> str:
        """Log once when look-ups begin to fail, and once when they work again."""
        if now and not before:
            log.warning("runners can't be looked up", target=str(target), reason=now)
        elif before and not now:
            log.info("runners can be looked up again", target=str(target))
        return now


@asynccontextmanager
async def open_dns_pool(
    targets: Iterable[str],
    *,
    config: PoolConfig | None = None,
    access: RunnerAccess | None = None,
    metrics: PoolMetrics | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[DynamicPool]:
    """A pool of the runners that ``targets`` stand for, looked up again and again.

    A target is ``dns://name:port`` (a runner at each address of the name), ``srv://name`` (a runner
    at each address of the hosts in its SRV records of the first priority), or a plain
    ``host:port``. Names are looked up as often as their TTL says, within the limits of ``config``,
    and early when a runner can't be reached. The last good answer is kept as long as a look-up
    fails or finds nothing. Opening waits for the first answers, but not for look-ups that fail.

    Without ``access.cert_common_name`` the certificate of a runner must have the name of its
    target, or the host that an SRV record names. Everything else is as for `open_dynamic_pool`.
    Raises `ConfigError` for a bad target, or if the system has no DNS server for a target that is a
    name.
    """
    targets = all_of("open_dns_pool: targets", targets, str)
    check("open_dns_pool", optional=True, config=(config, PoolConfig))
    config = config or PoolConfig()
    rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
    parsed = parse_targets(targets)
    resolver = _resolver(parsed, config)
    async with (
        open_dynamic_pool(config=config, access=access, metrics=metrics, rng=rng) as pool,
        open_background() as nursery,
    ):
        discovery = Discovery(pool, parsed, resolver, config, rng)
        await discovery.start(nursery)
        yield pool
        nursery.cancel_scope.cancel()


def _resolver(targets: Iterable[Target], config: PoolConfig) -> Resolver | None:
    """A resolver, or ``None`` if all targets are addresses. Most pools need no DNS server, and can
    do without the 1.5 MB that dnspython takes."""
    if all(isinstance(target, FixedTarget) for target in targets):
        return None
    from .dns import Resolver

    return Resolver(config)
