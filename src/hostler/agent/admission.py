"""Admission: which calls may wait for a busy container, and the fair shares of load balancers.
Pure.

A call for which this runner has no room may wait here for a hot container if it would be the next
call on it. So no container idles while the answer of one call and the next call travel. All other
calls are refused, because they may find room elsewhere.

Waiting calls are served in order of arrival, so what each load balancer gets follows from how many
of its calls are here. Where several load balancers want in, none may have more calls here than its
share. Where calls can't wait, because their functions differ or run for long, the load balancer
with more calls leaves places to the others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from ..protocol import LEAVE_SECONDS

CONTENDED_SECONDS = 1.5
"""Seconds for which no call may wait after calls of two functions were refused: containers that
never idle are never evicted for the other function. Longer than the pauses in which waiting calls
try again (`hostler.config.PlacerConfig.retry_max_delay`), or each function would seem to be alone
now and then."""

WANTED_SECONDS = 1.0
"""Seconds for which a refused load balancer counts as one that wants more than it has, and for
which a call that asked to wait shows that calls wait here."""

SHARED_SECONDS = 4.0
"""Seconds, beside these, for which no places are left to load balancers that want the same
function. Their calls may wait here, which loses less, even if none had to for a moment."""

SLICE_SECONDS = 1.0
"""Minimum seconds that a load balancer keeps a container slot while other load balancers compete
for it: the next one may have to start a container there."""

SLICE_STARTS = 4.0
"""A slot stays with its load balancer for this many times the time of its start, counted from the
beginning of its first call."""

MAX_REFUSED = 64
"""Load balancers that are remembered before outdated ones are forgotten."""

PER_CONTAINER = 2
"""Calls per container when all is well: one runs, the next one waits."""


class FairAdmission:
    """The rules of one agent. Times are seconds of one clock, given by the caller. Load balancers
    are identified by the names that they give (`hostler.protocol.ServerEngagement.client`)."""

    def __init__(self) -> None:
        self._refused: Hashable = None
        self._contended_until = -math.inf
        self._used_until = -math.inf
        """Until when it counts that a call has asked to wait."""
        self._wants: dict[str, tuple[Hashable, float]] = {}
        """Load balancers that were refused lately: the slot key that they wanted, and until when
        that counts."""
        self._slice_until = -math.inf
        self._here: dict[Hashable, dict[str, int]] = {}
        """Calls of each load balancer, by slot key."""
        self._calls: dict[str, int] = {}
        """Calls of each load balancer, of all slot keys together: there may be hundreds."""

    def __repr__(self) -> str:
        return f"<FairAdmission contended_until={self._contended_until:.3f}>"

    def came(self, key: Hashable, lb: str) -> None:
        """A call of ``lb`` with the slot key ``key`` is here, until `left`."""
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
        """A call of ``lb`` was refused for lack of room."""
        if len(self._wants) >= MAX_REFUSED:
            self._forget(now)
        self._wants[lb] = key, now + WANTED_SECONDS

    def places(self, alive: int, now: float) -> int:
        """Calls of one slot key that may wait behind its ``alive`` containers, if one load balancer
        has sent all."""
        return 0 if now < self._contended_until else alive

    def may_wait(self, key: Hashable, lb: str, alive: int, waiting: int, now: float) -> bool:
        """Whether a call of ``lb`` that has come may wait beside ``waiting`` others."""
        self._used_until = now + WANTED_SECONDS
        places = self.places(alive, now)
        if places and (share := self.share(key, lb, alive, now)):
            may = self._here[key][lb] <= share
        else:
            may = waiting < places
        if may:  # it has what it wanted; if it wants more, that will show
            self._wants.pop(lb, None)
        return may

    def share(self, key: Hashable, lb: str, alive: int, now: float) -> int:
        """Calls of ``lb`` that may be here, running or waiting, so that others have their share; 0
        = no other load balancer wants in, or no call waits here.

        Max-min fairness: a load balancer that wants less than an even share leaves the rest to the
        others. A load balancer that was refused wants all it can get; the others want what they
        have.
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
        """A call has ended for which a container was started in ``seconds``, and which ``began``
        then. The start is to pay off before the slot goes to another load balancer."""
        self._slice_until = max(self._slice_until, began + SLICE_STARTS * seconds)

    def leaves(self, key: Hashable, lb: str, now: float) -> bool:
        """Whether the place of a call of ``lb`` with the slot key ``key``, which has just ended
        here, is left to other load balancers. Not to load balancers that want the same and have
        their `share`.

        It is left if another load balancer wants in that has fewer calls here, of whatever slot
        key. Load balancers with equally many calls take turns. A refused load balancer is left one
        place until it is refused again, so no place is kept for one that does not come.
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
        # A call that may wait here would take the place.
        self._contended_until = max(self._contended_until, now + LEAVE_SECONDS)
        return True

    def _forget(self, now: float) -> None:
        for lb in [lb for lb, (_, until) in self._wants.items() if until <= now]:
            del self._wants[lb]
