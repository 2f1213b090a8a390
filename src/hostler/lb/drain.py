"""Drain report: what a drain has cost, and what it has left behind."""

from __future__ import annotations

import os
import stat
from typing import Protocol

import attrs
import trio


@attrs.frozen(kw_only=True)
class ResourceUse:
    """What a program holds at one moment: Trio tasks of its run, and open sockets of its process (0
    where there is no ``/proc``)."""

    tasks: int
    sockets: int

    @classmethod
    def now(cls) -> ResourceUse:
        """The present use. To be called in a Trio task. Synchronous: reads ``/proc``."""
        return cls(tasks=trio.lowlevel.current_statistics().tasks_living, sockets=_count_sockets())


def _count_sockets() -> int:
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return 0
    return sum(map(_is_socket, descriptors))


def _is_socket(descriptor: str) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
    except OSError:  # that of the listing itself
        return False


class EndedCalls(Protocol):
    """The counts of finished calls in a snapshot of an agent."""

    @property
    def completed(self) -> int: ...
    @property
    def server_busy(self) -> int: ...
    @property
    def canceled(self) -> int: ...
    @property
    def timeouts(self) -> int: ...
    @property
    def errors(self) -> int: ...


@attrs.frozen(kw_only=True)
class DrainReport:
    """What a drain has cost, counted from its begin. A clean one has zeros for all but
    ``completed`` and ``seconds``."""

    seconds: float
    """How long it took."""
    completed: int = 0
    """Calls that ended well."""
    refused: int = 0
    """Calls that no runner had room for and that might not wait any more, or that came too late."""
    canceled: int = 0
    """Calls that this node or their clients cut off."""
    timeouts: int = 0
    errors: int = 0
    tasks: int = 0
    """Tasks of calls that did not end; after `since`, of the whole program."""
    sockets: int = 0
    """Sockets that are still open; known after `since`."""

    @property
    def clean(self) -> bool:
        """Whether nothing was cut off, refused or left."""
        return not any(
            (self.refused, self.canceled, self.timeouts, self.errors, self.tasks, self.sockets)
        )

    def since(self, before: ResourceUse) -> DrainReport:
        """The report with what the program holds now and did not hold ``before`` it opened pool and
        agent. Call it once both are closed."""
        now = ResourceUse.now()
        return attrs.evolve(
            self,
            tasks=max(0, now.tasks - before.tasks),
            sockets=max(0, now.sockets - before.sockets),
        )


def report_of(before: EndedCalls, after: EndedCalls, *, seconds: float, tasks: int) -> DrainReport:
    """The report of a drain between two snapshots of an agent, of a load balancer or of a
    runner."""
    return DrainReport(
        seconds=round(seconds, 3),
        completed=after.completed - before.completed,
        refused=after.server_busy - before.server_busy,
        canceled=after.canceled - before.canceled,
        timeouts=after.timeouts - before.timeouts,
        errors=after.errors - before.errors,
        tasks=tasks,
    )
