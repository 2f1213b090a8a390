"""The agent's side of its `KeepAlive`: tells it what happens, and does what it says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable

import structlog
import trio

from ..abc import KeepAlive
from ..call import Timings
from .statistics import AgentEvents
from .template import ContainerTemplate

log = structlog.get_logger(__name__)

RECIPES = 1000
"""Functions whose launch is remembered, those that had one last."""


class Idler(ABC):
    """A `KeptContainer` of the agent."""

    def __init__(self, memory: int, idle_timeout: float, *, ahead: bool) -> None:
        self.memory = memory
        self.idle_timeout = idle_timeout
        self.ahead = ahead
        self.idle_since = math.inf
        self.start_seconds = 0.0
        self.level = 1
        self.told = False
        """The policy knows that it idles."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """The slot key."""

    @property
    @abstractmethod
    def kept(self) -> bool:
        """It idles, and has to stay ready for a call."""

    def started(self, timings: Timings) -> None:
        """It is ready."""
        self.start_seconds = timings.start_seconds


class Keeping:
    """``hot`` tells whether a container of a key idles or starts, ``launch`` starts one if there
    is room."""

    def __init__(
        self,
        policy: KeepAlive,
        events: AgentEvents,
        *,
        hot: Callable[[Hashable], bool],
        launch: Callable[[Hashable, ContainerTemplate], bool],
    ) -> None:
        self.rank = policy.rank
        self._policy = policy
        self._metrics = events.metrics
        self._hot = hot
        self._launch = launch
        self._recipes: OrderedDict[Hashable, ContainerTemplate] = OrderedDict()
        self._nap = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Keeping {self._policy!r} recipes={len(self._recipes)}>"

    def became_idle(self, container: Idler, now: float) -> float:
        """Returns when to look at it, at the latest."""
        if container.kept:
            return math.inf
        container.told = True
        self._policy.became_idle(container, now)
        return self._policy.keep_until(container, now)

    def keep_until(self, container: Idler, now: float) -> float:
        """Until when it stays."""
        if container.told:
            return self._policy.keep_until(container, now)
        return container.idle_since + container.idle_timeout

    def taken(self, container: Idler, now: float) -> None:
        """A call has the idle container."""
        if container.told:
            container.told = False
            self._policy.taken(container, now)
        if container.ahead:
            self._metrics.starts_ahead_used.inc()

    def left(self, container: Idler, *, early: bool) -> None:
        """It is on its way out, without a call."""
        if container.told:
            container.told = False
            self._policy.left(container, trio.current_time(), early=early)
            self._nap.deadline = min(self._nap.deadline, self._policy.next_start())

    def missed(self, key: Hashable, recipe: Callable[[], ContainerTemplate]) -> None:
        """A call found no container, and one like ``recipe`` is launched."""
        self._metrics.cold_starts.inc()
        self._policy.missed(key, trio.current_time())
        if self._policy.starts_ahead:
            self._recipes[key] = recipe()
            self._recipes.move_to_end(key)
            if len(self._recipes) > RECIPES:
                self._recipes.popitem(last=False)

    async def run(self) -> None:
        """Start containers ahead of calls. Never returns."""
        while True:
            self._nap = trio.CancelScope(deadline=self._policy.next_start())
            with self._nap:
                await trio.sleep_forever()
            for key in self._policy.starts(trio.current_time()):
                recipe = self._recipes.get(key)
                if recipe is None or self._hot(key):
                    continue
                if self._launch(key, recipe):
                    self._metrics.starts_ahead.inc()
                else:
                    log.debug("no room to start a container ahead of its call")
