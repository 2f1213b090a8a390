"""Agent statistics: what happens in an agent, counted in one place, which also feeds the
metrics."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import attrs
import trio

from .._concurrency.signal import Signal
from ..abc import ContainerTask
from ..metrics import AgentMetrics, CallStatus, ContainerLabels, ReadyOutcome
from .resources import Resources


class ContainerState(enum.Enum):
    """Where a container is in its life, in order."""

    # Members are singletons. This hash is quick, and each call changes some counters.
    __hash__ = object.__hash__

    WAIT = "wait"
    """For memory and CPU."""
    START = "start"
    IDLE = "idle"
    PAUSED = "paused"
    BUSY = "busy"
    DONE = "done"
    """On its way out, or gone."""


READY = frozenset({ContainerState.IDLE, ContainerState.PAUSED, ContainerState.BUSY})
"""The states in which a container has a call, or can take one."""

_FOLLOWING: Mapping[ContainerState | None, Sequence[ContainerState | None]] = {
    None: [ContainerState.WAIT],
    ContainerState.WAIT: [ContainerState.START, None],
    ContainerState.START: [ContainerState.IDLE, ContainerState.BUSY, ContainerState.DONE],
    ContainerState.IDLE: [ContainerState.PAUSED, ContainerState.BUSY, ContainerState.DONE],
    ContainerState.PAUSED: [ContainerState.IDLE, ContainerState.BUSY, ContainerState.DONE],
    # Paused, if its call is over before it is thawed.
    ContainerState.BUSY: [ContainerState.IDLE, ContainerState.PAUSED, ContainerState.DONE],
    ContainerState.DONE: [None],
}
TRANSITIONS = frozenset((old, new) for old, news in _FOLLOWING.items() for new in news)
"""The allowed changes of state; ``None`` = the container does not exist, yet or any more."""


@attrs.frozen(kw_only=True)
class AgentStatistics:
    """A snapshot of an agent.

    ``calls`` to ``thaws`` count since the agent was opened; the rest is the present state.
    ``server_busy`` counts calls that were refused for lack of room or because the agent closes;
    ``canceled`` counts calls whose caller gave up.
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
    freezes: int
    thaws: int

    queued: int
    """Calls that wait for a slot."""
    running: int
    """Calls that a function works on."""
    holding: int
    """Queued calls that have a slot and wait for their commit."""
    containers: Mapping[ContainerState, int]
    """By state, without zeros and without containers that are done."""
    leaving: int
    """Containers on their way out."""
    slot_queues: int
    waiting_for_room: int
    """Launches that wait for memory and CPU."""
    used: Resources
    total: Resources

    @property
    def at_rest(self) -> bool:
        """Nothing happens and nothing is held: no call, no container, no resources."""
        return (
            not (self.queued or self.running or self.leaving)
            and not (self.containers or self.slot_queues or self.waiting_for_room)
            and not self.used
        )


class AgentEvents:
    """The counters of one agent, and the metrics, which several agents may share. Every change goes
    through here."""

    def __init__(self, metrics: AgentMetrics) -> None:
        self.metrics = metrics
        self.calls = 0
        self.ended: dict[CallStatus, int] = dict.fromkeys(metrics.ended, 0)
        self.launches = 0
        self.launch_failures = 0
        self.freezes = 0
        self.thaws = 0
        self.queued = 0
        self.running = 0
        self.holding = 0
        self.containers = dict.fromkeys(ContainerState, 0)
        self.change = Signal()

    # Calls. (Methods of a counter would take longer than all the rest here.)

    def submitted(self) -> None:
        """A call waits for a slot."""
        self.calls += 1
        self.queued += 1
        metrics = self.metrics
        metrics.calls.value += 1
        metrics.queued.value += 1

    def refused(self) -> None:
        """A call was not admitted."""
        self.calls += 1
        self.metrics.calls.value += 1
        self._count("server_busy")

    def started(self) -> None:
        """A function works on a call that has waited."""
        self.queued -= 1
        self.running += 1
        metrics = self.metrics
        metrics.queued.value -= 1
        metrics.running.value += 1

    def waits_again(self) -> None:
        """A call that had started waits for another slot: its function has got nothing of it."""
        self.queued += 1
        self.running -= 1
        metrics = self.metrics
        metrics.queued.value += 1
        metrics.running.value -= 1

    def ended_waiting(self, status: CallStatus) -> None:
        """A call that had not started is over."""
        self._count(status)
        self.queued -= 1
        self.metrics.queued.value -= 1

    def ended_running(self, status: CallStatus) -> None:
        """A call that had started is over."""
        self._count(status)
        self.running -= 1
        self.metrics.running.value -= 1
        self.change.note()

    def _count(self, status: CallStatus) -> None:
        self.ended[status] += 1
        self.metrics.ended[status].value += 1

    # Reservations and containers.

    def held(self) -> None:
        """A call has a slot and waits for its commit."""
        self.holding += 1
        self.metrics.reservations.inc()

    def released(self, *, committed: bool) -> None:
        """The wait for a commit is over."""
        self.holding -= 1
        metrics = self.metrics
        (metrics.reservations_committed if committed else metrics.reservations_abandoned).inc()

    def launched(self) -> None:
        self.launches += 1
        self.metrics.launches.inc()

    def launch_failed(self) -> None:
        self.launch_failures += 1
        self.metrics.launch_failures.inc()

    def froze(self) -> None:
        self.freezes += 1
        self.metrics.freezes.inc()

    def thawed(self) -> None:
        self.thaws += 1
        self.metrics.thaws.inc()

    def track(self, task: ContainerTask) -> ContainerTrack:
        """Follow a container, which waits for its resources now."""
        return ContainerTrack(self, self.metrics.labels(task.app_id, task.fn_id, task.image))


class ContainerTrack:
    """Follows one container through its states."""

    def __init__(self, events: AgentEvents, labels: ContainerLabels) -> None:
        self.state: ContainerState | None = None
        self._events = events
        self._metrics = events.metrics
        self._labels = labels
        stays = events.metrics.stays(labels)
        self._stays = {state: stays.get(state.value) for state in ContainerState}
        self._since = 0.0
        self.move(ContainerState.WAIT, trio.current_time())

    def move(self, new: ContainerState | None, now: float) -> None:
        """The container is in state ``new`` from ``now`` on; ``None`` = it is gone. Idempotent."""
        old = self.state
        if new is old:
            return
        assert (old, new) in TRANSITIONS, (old, new)
        counts = self._events.containers
        if old is not None:
            counts[old] -= 1
            if (stays := self._stays[old]) is not None:
                stays.end(now - self._since)
        if new is not None:
            counts[new] += 1
            if (stays := self._stays[new]) is not None:
                stays.inside += 1
        self.state, self._since = new, now
        self._events.change.note()

    def evicted(self) -> None:
        """The container has to make room for another one."""
        assert self.state is not None
        self._metrics.evicted(self.state.value, self._labels)

    def awaited(self, outcome: ReadyOutcome, seconds: float) -> None:
        """The wait for the container's socket is over."""
        self._metrics.observe_ready(outcome, self._labels, round(seconds * 1e9))
