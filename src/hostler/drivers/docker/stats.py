"""Resource samples of all containers at a bounded rate.

The engine offers a stream per container, which costs a thread, a connection, and some CPU time a
second at both ends for each container, however idle. So one task asks for one container after the
other, each about once in `PERIOD` seconds, and if they are many less often, so that it is never
more than `RATE` questions a second. Frozen containers use nothing and are not asked for. While
containers are launched there are no questions, for at most `LAUNCHES_FIRST`: answering them takes
CPU time that the launches need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import docker
import structlog
import trio

from ..._concurrency.signal import IdleGate
from .engine import CONFLICT, JSON, NOT_FOUND, Engine, EngineError, EngineOperation

log = structlog.get_logger(__name__)

PERIOD = 1.0
"""Seconds between two samples of a container (Fn's)."""

RATE = 20.0
"""Samples a second, of all containers together; one costs about 2 ms of CPU time here."""

LAUNCHES_FIRST = 5.0
"""Seconds that a round of questions may take longer for the sake of launches."""

ONE_SHOT = (1, 41)
"""API version from which the engine answers at once, instead of measuring for a second or two."""


@attrs.define(eq=False)
class Sampled:
    """A container that is sampled unless it is ``frozen``."""

    container_id: str
    on_sample: Callable[[Mapping[str, int]], None]
    frozen: bool = False
    before: JSON | None = None


class Sampler:
    """See the module."""

    def __init__(
        self, engine: Engine, launches: IdleGate, on_sample: Callable[[Sample], None]
    ) -> None:
        self._engine = engine
        self._launches = launches
        self._on_sample = on_sample
        self._sampled: dict[str, Sampled] = {}
        self._some = trio.Event()
        self._healthy = True

    def add(self, container_id: str, on_sample: Callable[[Mapping[str, int]], None]) -> Sampled:
        """Sample a running container until `remove`."""
        sampled = self._sampled[container_id] = Sampled(container_id, on_sample)
        self._some.set()
        return sampled

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        self._sampled.pop(container_id, None)

    async def run(self) -> None:
        """Sample until cancelled; a failing engine is logged once."""
        if tuple(int(part) for part in self._engine.api_version.split(".")) < ONE_SHOT:
            log.warning("engine too old for statistics", api_version=self._engine.api_version)
            return
        pace = RateLimiter(RATE, 1)
        while True:
            await self._some.wait()
            began = trio.current_time()
            for sampled in tuple(self._sampled.values()):
                if not sampled.frozen:
                    await self._launches.wait(began + LAUNCHES_FIRST)
                    await pace.wait()
                    await self._sample(sampled)
            if not self._sampled:
                self._some = trio.Event()
            await trio.sleep_until(began + PERIOD)

    async def _sample(self, sampled: Sampled) -> None:
        if sampled.container_id not in self._sampled or sampled.frozen:
            return
        try:
            now = await self._engine.call(
                EngineOperation.STATISTICS, partial(_one_shot, container_id=sampled.container_id)
            )
        except EngineError as error:
            if error.status in (NOT_FOUND, CONFLICT):
                return  # it has just ended
            if self._healthy:
                log.warning("no statistics from the engine", error=str(error))
            self._healthy = False
            return
        self._healthy = True
        if not now.get("memory_stats"):
            return  # it has ended: all zeros
        sample = make_sample(now, sampled.before)
        sampled.before = now
        self._on_sample(sample)
        try:
            sampled.on_sample(sample.as_metrics())
        except Exception:
            log.exception("on_sample failed", container=sampled.container_id)
            sampled.on_sample = _ignore


def _ignore(sample: Mapping[str, int]) -> None:
    pass


def _one_shot(client: docker.APIClient, *, container_id: str) -> JSON:
    answer: JSON = client.stats(container_id, stream=False, one_shot=True)
    return answer


@attrs.frozen(kw_only=True)
class Sample:
    """One sample, in Fn's terms: bytes since the container's start, bytes of memory now, and
    percent of one CPU since the sample before."""

    net_rx: int = 0
    net_tx: int = 0
    disk_read: int = 0
    disk_write: int = 0
    mem_usage: int = 0
    mem_limit: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    cpu_total: int = 0

    def as_metrics(self) -> dict[str, int]:
        """By the names that Fn gives them."""
        return attrs.asdict(self)


def make_sample(now: JSON, before: JSON | None) -> Sample:
    """``now`` and ``before`` are answers of the engine's ``/containers/{id}/stats``. CPU is 0
    without ``before``, and after a container has ended, which the engine answers with zeros."""
    networks = (_at(now, "networks") or {}).values()
    user, kernel, total = _cpu(now, before)
    return Sample(
        net_rx=sum(_number(network, "rx_bytes") for network in networks),
        net_tx=sum(_number(network, "tx_bytes") for network in networks),
        disk_read=_disk(now, "read"),
        disk_write=_disk(now, "write"),
        mem_usage=_number(now, "memory_stats", "usage"),
        mem_limit=_number(now, "memory_stats", "limit"),
        cpu_user=user,
        cpu_kernel=kernel,
        cpu_total=total,
    )


def _cpu(now: JSON, before: JSON | None) -> tuple[int, int, int]:
    """User, kernel and both, in percent of one CPU.

    The container's time is compared with the system's, which is the sum over all CPUs. Fn takes
    their number from the list of usages by CPU, which cgroup v2 does not have, so that its values
    are 0 there; the engine tells the number itself since API 1.27.
    """
    if before is None:
        return 0, 0, 0
    system = _delta(now, before, "system_cpu_usage")
    if system <= 0:
        return 0, 0, 0
    by_cpu = _at(now, "cpu_stats", "cpu_usage", "percpu_usage") or ()
    cpus = _number(now, "cpu_stats", "online_cpus") or len(by_cpu)

    def percent(name: str) -> int:
        used = max(0, _delta(now, before, "cpu_usage", name))
        return round(used * cpus * 100 / system)

    return percent("usage_in_usermode"), percent("usage_in_kernelmode"), percent("total_usage")


def _delta(now: JSON, before: JSON, *path: str) -> int:
    return _number(now, "cpu_stats", *path) - _number(before, "cpu_stats", *path)


def _disk(now: JSON, operation: str) -> int:
    """Bytes of ``operation`` over all devices: ``Read`` with cgroup v1, ``read`` with v2."""
    entries = _at(now, "blkio_stats", "io_service_bytes_recursive") or ()
    return sum(
        _number(entry, "value")
        for entry in entries
        if str(entry.get("op", "")).lower() == operation
    )


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, *path: str) -> int:
    found = _at(value, *path)
    return found if isinstance(found, int) else 0


class RateLimiter:
    """Lets steps through at ``rate`` per second, after a pause up to ``burst`` at once.

    It is the generic cell rate algorithm (ITU-T I.371): all that is kept is the time at which
    the allowance would be used up exactly.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._allowance = (burst - 1) / rate
        self._used_up = -math.inf

    async def wait(self) -> None:
        """Wait until the next step is allowed, in order of arrival. A step that is cancelled
        while it waits counts as done."""
        now = trio.current_time()
        self._used_up = max(self._used_up, now) + self._interval
        await trio.sleep_until(self._used_up - self._interval - self._allowance)
