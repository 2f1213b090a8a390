"""What happens in an agent, counted in one place, so that metrics have one place to hook in."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping

import attrs

from ._decisions import Resources


class ContainerState(enum.Enum):
    """Where a container is in its life, in order."""

    WAIT = "wait"
    """For memory and CPU."""
    START = "start"
    IDLE = "idle"
    PAUSED = "paused"
    BUSY = "busy"
    DONE = "done"
    """On its way out, or gone."""


@attrs.frozen(kw_only=True)
class AgentStatistics:
    """A snapshot of an agent.

    ``calls`` to ``launch_failures`` count since the agent was opened; the rest is what there is
    now. ``server_busy`` counts calls that were refused for want of room or because the agent
    closes; ``canceled`` those whose caller gave up.
    """

    calls: int
    completed: int
    canceled: int
    timeouts: int
    errors: int
    server_busy: int
    evictions: int
    launches: int
    launch_failures: int

    queued: int
    """Calls that wait for a slot."""
    running: int
    """Calls that a function works on."""
    containers: Mapping[ContainerState, int]
    """By state, without zeros and without those that are done."""
    leaving: int
    """Containers on their way out."""
    slot_queues: int
    waiting_for_room: int
    """Launches that stand in line for memory and CPU."""
    used: Resources
    total: Resources

    @property
    def at_rest(self) -> bool:
        """Nothing is going on and nothing is held: no call, no container, no resources."""
        return (
            not (self.queued or self.running or self.leaving)
            and not (self.containers or self.slot_queues or self.waiting_for_room)
            and not self.used
        )


class AgentEvents:
    """The counters of one agent. Every change goes through here."""

    def __init__(self) -> None:
        self.calls = 0
        self.completed = 0
        self.canceled = 0
        self.timeouts = 0
        self.errors = 0
        self.server_busy = 0
        self.launches = 0
        self.launch_failures = 0
        self.queued = 0
        self.running = 0
        self.leaving = 0
        self._containers: Counter[ContainerState] = Counter()

    def moved(self, old: ContainerState | None, new: ContainerState | None) -> None:
        """A container went from one state to another; ``None`` = it did, or does, not exist."""
        if old is not None:
            self._containers[old] -= 1
        if new is not None:
            self._containers[new] += 1

    def containers(self) -> dict[ContainerState, int]:
        """How many containers are in each state, without zeros."""
        return {state: count for state, count in self._containers.items() if count}
