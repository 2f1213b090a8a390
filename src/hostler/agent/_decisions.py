"""The agent's decisions as pure functions: no clock, no I/O, no state."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, Protocol, TypeVar

import attrs
import msgspec


class Resources(msgspec.Struct, frozen=True, gc=False):
    """An amount: ``memory`` in bytes, ``cpus`` in milli-CPUs."""

    memory: int = 0
    cpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.memory + other.memory, self.cpus + other.cpus)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.memory - other.memory, self.cpus - other.cpus)

    def __bool__(self) -> bool:
        return self.memory > 0 or self.cpus > 0

    def fits(self, room: Resources) -> bool:
        """Whether this amount is within ``room`` in each dimension; nothing always fits."""
        return (self.memory <= 0 or self.memory <= room.memory) and (
            self.cpus <= 0 or self.cpus <= room.cpus
        )

    def beyond(self, room: Resources) -> Resources:
        """What ``room`` lacks to hold this amount, to the byte; never negative."""
        return Resources(
            max(0, self.memory - max(0, room.memory)), max(0, self.cpus - max(0, room.cpus))
        )


class Evictable(Protocol):
    """An idle container as the choice of victims sees it."""

    @property
    def key(self) -> Hashable:
        """Its slot key."""

    @property
    def size(self) -> Resources:
        """What its end frees."""


E = TypeVar("E", bound=Evictable)


def choose_victims(idle: Iterable[E], missing: Resources, *, spare: Hashable) -> Sequence[E]:
    """Choose whom of ``idle`` to end so that ``missing`` becomes free; ``()`` = can't be done.

    ``idle`` comes in the order of eviction, by default that of last use, the least recent first.
    Containers of the slot key ``spare``, and those that have nothing of what is missing, are
    left alone. At the end, who turned out not to be needed beside a bigger one is let off, the
    last ones first.
    """
    if not missing:
        return ()
    chosen: list[E] = []
    lacking = missing
    for container in idle:
        if container.key == spare or not _helps(container.size, lacking):
            continue
        chosen.append(container)
        lacking = lacking.beyond(container.size)
        if not lacking:
            return _without_surplus(chosen, missing)
    return ()


def _helps(size: Resources, lacking: Resources) -> bool:
    return (lacking.memory > 0 and size.memory > 0) or (lacking.cpus > 0 and size.cpus > 0)


def _without_surplus(chosen: list[E], missing: Resources) -> Sequence[E]:
    freed = sum((container.size for container in chosen), Resources())
    for container in reversed(chosen):
        if missing.fits(freed - container.size):
            chosen.remove(container)
            freed -= container.size
    return chosen


Step = Literal["freeze", "thaw", "retire", "rest"]


@attrs.frozen
class Plan:
    """What an idle container does next: ``step`` now, unless it is retired at ``at`` (seconds)
    before it comes to that; or rest until ``at``."""

    step: Step
    at: float = math.inf


def plan_idle(
    now: float,
    idle_since: float,
    *,
    frozen: bool,
    kept: bool,
    freeze_after: float,
    retire_at: float,
) -> Plan:
    """Decide what a container does that idles since ``idle_since``. All in seconds.

    ``kept``: it has to stay ready for a call, however long that takes; otherwise it goes at
    ``retire_at``.
    """
    if kept:
        return Plan("thaw" if frozen else "rest")
    if now >= retire_at:
        return Plan("retire")
    if frozen:
        return Plan("rest", retire_at)
    freeze_at = idle_since + freeze_after
    if now >= freeze_at:
        return Plan("freeze", retire_at)
    return Plan("rest", min(freeze_at, retire_at))
