"""The agent's side of a keep-alive policy: tells a `KeepAlive` what happens, and does what it
says."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Protocol

import structlog
import trio

from .._concurrency.alarm import Alarm
from .._stats import LRUDict
from ..abc import KeepAlive, KeptContainer
from ..calls import PendingCall
from ..metrics import AgentMetrics
from .slots import SlotQueues
from .template import ContainerTemplate, TemplateLauncher

log = structlog.get_logger(__name__)

TEMPLATES = 1000
"""Functions whose launch is remembered, the most recent ones."""


class Idler(KeptContainer, Protocol):
    """A container of the agent."""

    policy_knows: bool
    """The policy was told that it idles."""

    @property
    def kept(self) -> bool:
        """It idles, and has to stay ready for a call."""


class Keeping:
    """What an agent does for its ``policy``."""

    def __init__(
        self,
        policy: KeepAlive,
        metrics: AgentMetrics,
        queues: SlotQueues[Any],
        launcher: TemplateLauncher,
    ) -> None:
        self.rank = policy.rank
        self._policy = policy
        self._metrics = metrics
        self._queues = queues
        self._launcher = launcher
        self._templates = LRUDict[Hashable, ContainerTemplate](TEMPLATES)
        self._alarm = Alarm()

    def __repr__(self) -> str:
        return f"<Keeping {self._policy!r} templates={len(self._templates)}>"

    def became_idle(self, container: Idler, now: float) -> float:
        """``container`` idles. Returns when to look at it, at the latest."""
        if container.kept:
            return math.inf
        container.policy_knows = True
        self._policy.became_idle(container, now)
        return self._policy.keep_until(container, now)

    def keep_until(self, container: Idler, now: float) -> float:
        """Until when ``container`` stays."""
        if container.policy_knows:
            return self._policy.keep_until(container, now)
        return container.idle_since + container.idle_timeout

    def taken(self, container: Idler, now: float) -> None:
        """A call has the idle container."""
        if container.policy_knows:
            container.policy_knows = False
            self._policy.taken(container, now)
        if container.ahead:
            self._metrics.starts_ahead_used.inc()

    def left(self, container: Idler, *, early: bool) -> None:
        """The container is on its way out, without a call."""
        if container.policy_knows:
            container.policy_knows = False
            self._policy.left(container, trio.current_time(), early=early)
            self._alarm.end_at(min(self._alarm.until, self._policy.next_start()))

    def missed(self, key: Hashable, call: PendingCall) -> None:
        """``call`` found no container, and one is launched for it."""
        self._metrics.cold_starts.inc()
        self._policy.missed(key, trio.current_time())
        if self._policy.starts_ahead:
            self._templates[key] = self._launcher.template_of(call)

    async def run(self) -> None:
        """Start containers ahead of calls. Never returns."""
        while True:
            await self._alarm.take(self._policy.next_start(), trio.sleep_forever)
            for key in self._policy.starts(trio.current_time()):
                template = self._templates.get(key)
                if template is None or self._queues.is_hot(key):
                    continue
                if self._launcher.launch_spare(key, template.again(), ahead=True):
                    self._metrics.starts_ahead.inc()
                else:
                    log.debug("no room to start a container ahead of its call")
