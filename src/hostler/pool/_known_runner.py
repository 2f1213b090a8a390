"""What a placer knows of one runner. Pure; times are seconds of one clock, given by the caller."""

from __future__ import annotations

import math

import attrs

from ..protocol import LoadHint

HINT_SECONDS = 10.0
"""How long a runner's word about its calls and memory is believed."""


@attrs.define(eq=False)
class KnownRunner:
    """One runner, as far as own calls and its hints tell."""

    in_flight: int = 0
    """Own calls that are there, or on their way."""
    hint: LoadHint | None = None
    """The last."""
    hinted_at: float = -math.inf
    others: int = 0
    """Calls of other LBs, by the last hint."""
    unseen_memory: int = 0
    """Bytes that own calls may have taken since the last hint."""
    unseen_cpus: int = 0
    """The same in milli-CPUs."""
    idle_cpus: int | None = None
    """Milli-CPUs of its machine that nothing used, when it last said so."""
    tells: bool = False
    """The runner tells of changes by itself: the last hint does not age."""
    full_until: float = -math.inf
    full_for: int = 0
    """Bytes; the least that was refused."""
    held_until: float = -math.inf
    """What is free there until then is for others."""

    def calls(self, now: float) -> int:
        return self.in_flight + (self.others if now <= self.hinted_at + HINT_SECONDS else 0)

    @property
    def tells_all(self) -> bool:
        """Whether it tells of changes, and of what evictions would free."""
        return self.tells and self.hint is not None and knows_all(self.hint)

    def left(self) -> int:
        """Bytes of free memory; 0 or less if nobody knows."""
        return (0 if self.hint is None else self.hint.free_memory) - self.unseen_memory

    def room(self, *, gentle: bool) -> int:
        """Bytes with what evictions would free, as far as it is known."""
        room, hint = self.left(), self.hint
        if hint is not None:
            room += hint.reclaimable_memory if knows_all(hint) else 0
            room -= hint.worthy_memory if gentle else 0
        return room

    def cpus_left(self) -> float:
        """Free milli-CPUs; infinite if the runner does not tell."""
        hint = self.hint
        return (
            math.inf
            if hint is None or hint.free_cpus is None
            else hint.free_cpus - self.unseen_cpus
        )

    def cpus(self, *, gentle: bool) -> float:
        """The same with what evictions would free."""
        cpus, hint = self.cpus_left(), self.hint
        if hint is not None:
            cpus += hint.reclaimable_cpus - (hint.worthy_cpus if gentle else 0)
        return cpus


def knows_all(hint: LoadHint) -> bool:
    """Whether the runner tells what evictions would free."""
    return hint.complete or hint.free_cpus is not None
