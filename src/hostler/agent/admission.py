"""Admission: which calls may wait for a busy container, and the fair shares of load balancers.

Which calls may wait at this runner for a hot container although it has no room: those that
would be the next one on it, so that no container idles while the answer of one call and the next
call travel. All others are refused, as they may find room elsewhere. Pure.

Who waits is served in order of arrival. So what each load balancer gets follows from how many of
its calls are here, and where several want in, none may have more here than its share. Where they
can't wait, since their functions differ or run for long, who has more leaves places to the others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from ..protocol import LEAVE_SECONDS

CONTENDED_SECONDS = 1.5
"""How long nobody may wait after calls of two functions were refused: containers that never idle
are never evicted for the other one. Longer than the pauses in which those that wait ask again
(`hostler.config.PlacerConfig.retry_max_delay`), or each would seem to be alone now and then."""

WANTED_SECONDS = 1.0
"""How long a load balancer that was refused counts as one that wants more than it has, and calls
that ask for leave to wait as a sign that there are always some."""

SHARED_SECONDS = 4.0
"""How much longer nobody leaves places to those that want the same function: they may wait here,
with less loss, though for a moment none may have had to."""

SLICE_SECONDS = 1.0
"""How long a place stays with a load balancer at least while others have as many without it: the
next may have to start a container there."""

SLICE_STARTS = 4.0
"""How many times what that start took it stays from the beginning of the first call there."""

MAX_REFUSED = 64
"""Load balancers that are remembered before those are forgotten that do not count any more."""

PER_CONTAINER = 2
"""Calls that are here while all is well: one runs, the next waits."""


class FairAdmission:
    """The rule of one agent. Times are seconds of one clock, given by the caller. Load balancers
    are known by what they call themselves (`hostler.protocol.ServerEngagement.client`)."""

    def __init__(self) -> None:
        self._refused: Hashable = None
        self._contended_until = -math.inf
        self._used_until = -math.inf
        """Until when it counts that a call has asked for leave to wait."""
        self._wants: dict[str, tuple[Hashable, float]] = {}
        """Load balancers that were refused lately: for which slot key, and until when it counts."""
        self._slice_until = -math.inf
        self._here: dict[Hashable, dict[str, int]] = {}
        """Calls of each load balancer, by slot key."""
        self._calls: dict[str, int] = {}
        """Those of all keys together: there may be hundreds."""

    def __repr__(self) -> str:
        return f"<FairAdmission contended_until={self._contended_until:.3f}>"

    def came(self, key: Hashable, lb: str) -> None:
        """A call of ``lb`` with the slot key ``key`` is here, until as many have `left`."""
        here = self._here.get(key)
        if here is None:
            here = self._here[key] = {}
        here[lb] = here.get(lb, 0) + 1
        self._calls[lb] = self._calls.get(lb, 0) + 1

    def left(self, key: Hashable, lb: str) -> None:
        here = self._here[key]
        if here[lb] > 1:
            here[lb] -= 1
        else:
            del here[lb]
            if not here:
                del self._here[key]
        if self._calls[lb] > 1:
            self._calls[lb] -= 1
        else:
            del self._calls[lb]

    def found_no_room(self, key: Hashable, now: float) -> None:
        """There is no room for a container of the slot key ``key``."""
        if self._refused is not None and key != self._refused:
            self._contended_until = now + CONTENDED_SECONDS
        self._refused = key

    def refused(self, key: Hashable, lb: str, now: float) -> None:
        """A call of ``lb`` was refused for that."""
        if len(self._wants) >= MAX_REFUSED:
            self._forget(now)
        self._wants[lb] = key, now + WANTED_SECONDS

    def places(self, alive: int, now: float) -> int:
        """Calls of one slot key that may wait behind its ``alive`` containers, if all are of one
        load balancer."""
        return 0 if now < self._contended_until else alive

    def may_wait(self, key: Hashable, lb: str, alive: int, waiting: int, now: float) -> bool:
        """Whether a call of ``lb`` that has come may wait, beside so many others."""
        self._used_until = now + WANTED_SECONDS
        places = self.places(alive, now)
        if places and (share := self.share(key, lb, alive, now)):
            may = self._here[key][lb] <= share
        else:
            may = waiting < places
        if may:  # it has what it wanted; what more it wants will show
            self._wants.pop(lb, None)
        return may

    def share(self, key: Hashable, lb: str, alive: int, now: float) -> int:
        """Calls of ``lb`` that may be here, running or waiting, so that others have theirs;
        0 = nobody else wants in, or nobody waits here.

        Max-min fairness: who wants less than an even share leaves the rest to the others. Those
        that were refused want all they can get, the others what they have.
        """
        if now >= self._used_until:
            return 0
        here: Mapping[str, int] = self._here.get(key, {})
        if self._wants:
            self._forget(now)
        wanting = {other for other, (wanted, _) in self._wants.items() if wanted == key}
        others = {*here, *wanting} - {lb}
        if not others:
            return 0
        total = PER_CONTAINER * alive
        even = -(-total // (len(others) + 1))
        wanted = sum(even if other in wanting else min(even, here[other]) for other in others)
        return max(1, even, total - wanted)

    def started(self, seconds: float, began: float) -> None:
        """A call has ended for which a container was started in so many ``seconds``, and that
        ``began`` then: it is to be worth that before it makes way for one of others."""
        self._slice_until = max(self._slice_until, began + SLICE_STARTS * seconds)

    def leaves(self, key: Hashable, lb: str, now: float) -> bool:
        """Whether the place of a call of ``lb`` with the slot key ``key``, which has just ended
        here, is left to others. Not to those that want the same and have their `share`.

        It is if another wants in that has fewer calls here, of whatever slot key. Where both have
        as many one of them has to have more, and they take turns. Who was refused is left one
        place until it is refused again: so none is kept for who does not come.
        """
        if not self._wants:
            return False
        self._forget(now)
        shared = self._contended_until <= now < self._used_until + SHARED_SECONDS
        others = {
            other: self._calls.get(other, 0)
            for other, (wanted, _) in self._wants.items()
            if other != lb and not (shared and wanted == key)
        }
        if not others:
            return False
        poorest = min(others, key=others.__getitem__)
        own, least = self._calls.get(lb, 0), others[poorest]
        if own < least or (own == least and now < self._slice_until):
            return False
        if own == least:
            self._slice_until = now + SLICE_SECONDS
        del self._wants[poorest]
        # Who may wait here would take it.
        self._contended_until = max(self._contended_until, now + LEAVE_SECONDS)
        return True

    def _forget(self, now: float) -> None:
        for lb in [lb for lb, (_, until) in self._wants.items() if until <= now]:
            del self._wants[lb]
