"""Statistics of all containers of a driver, by one task at a bounded rate.

The engine offers a stream per container, which costs a thread, a connection, and some CPU time a
second at both ends for each container, however idle. So one task asks for one container after the
other, each about once in `PERIOD` seconds, and if they are many less often, so that it is never
more than `RATE` questions a second. Frozen containers use nothing and are not asked for. While
containers are launched there are no questions, for at most `LAUNCHES_FIRST`: answering them takes
CPU time that the launches need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import docker
import structlog
import trio

from ..._concurrency.signal import Calm
from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._pace import Pace
from ._statistics import Sample, make_sample
from ._streams import JSON

log = structlog.get_logger(__name__)

PERIOD = 1.0
"""Seconds between two samples of a container (Fn's)."""
RATE = 20.0
"""Samples a second, of all containers together; one costs about 2 ms of CPU time here."""
LAUNCHES_FIRST = 5.0
"""Seconds that a round of questions may take longer for the sake of launches."""
ONE_SHOT = (1, 41)
"""API version from which the engine answers at once, instead of measuring for a second or two."""
_NOT_FOUND, _CONFLICT = 404, 409


@attrs.define(eq=False)
class Sampled:
    """A container that is sampled unless it is ``frozen``."""

    container_id: str
    on_sample: Callable[[Mapping[str, int]], None]
    frozen: bool = False
    before: JSON | None = None


class Sampler:
    """See the module."""

    def __init__(self, engine: Engine, launches: Calm, on_sample: Callable[[Sample], None]) -> None:
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
        pace = Pace(RATE, 1)
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
                Operation.STATISTICS, partial(_one_shot, container_id=sampled.container_id)
            )
        except EngineError as error:
            if error.status in (_NOT_FOUND, _CONFLICT):
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
