"""Keeps a pool's runners in step with what its targets stand for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from ..config import PoolConfig
from ._dynamic import DynamicPool
from ._metrics import PoolMetrics
from ._targets import FixedTarget, Found, LookupFailed, NameTarget, ServiceTarget, Target

if TYPE_CHECKING:  # see open_dns_pool
    from ._dns import Resolver

log = structlog.get_logger(__name__)

JITTER = (0.8, 1.0)
"""Of the time that an answer holds: never longer, and not all LBs of a fleet at once."""


class Discovery:
    """One task for each target that has to be looked up; ``resolver`` is needed only by these."""

    def __init__(
        self,
        pool: DynamicPool,
        targets: Sequence[Target],
        resolver: Resolver | None,
        config: PoolConfig,
        metrics: PoolMetrics,
        rng: random.Random,
    ) -> None:
        self._pool = pool
        self._targets = targets
        self._resolver = resolver
        self._config = config
        self._metrics = metrics
        self._rng = rng
        self._found: dict[Target, Mapping[str, str]] = {
            target: {target.address: ""} for target in targets if isinstance(target, FixedTarget)
        }
        self._hurry = trio.Event()

    def __repr__(self) -> str:
        return f"<Discovery targets={len(self._targets)} found={len(self._found)}>"

    async def start(self, nursery: trio.Nursery) -> None:
        """Look everything up once, then keep on in ``nursery``. Raises nothing of its own."""
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
            self._metrics.lookups.inc()
            try:
                found = await self._resolver.find(target)
            except LookupFailed as error:
                self._metrics.lookup_failures.inc()
                trouble = self._tell(target, trouble, str(error))
                pause = min(pause * 2, self._config.dns_max_interval)
            else:
                trouble = self._tell(target, trouble, "")
                pause = self._take(target, found)
            if not started:
                started = True
                task_status.started()
            await self._wait(max(pause * self._rng.uniform(*JITTER), self._config.dns_min_interval))

    def _take(self, target: Target, found: Found) -> float:
        """Use an answer; the seconds until the next look-up."""
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
        """Until the time has come or there is a reason to hurry, with the least pause at least."""
        least = self._config.dns_min_interval
        await trio.sleep(least)
        with trio.move_on_after(seconds - least):
            await self._hurry.wait()

    def _tell(self, target: Target, before: str, now: str) -> str:
        """One log line when look-ups begin to fail, and one when they work again."""
        if now and not before:
            log.warning("runners can't be looked up", target=str(target), reason=now)
        elif before and not now:
            log.info("runners can be looked up again", target=str(target))
        return now
