"""Which calls may wait at this runner for a hot container although it has no room: those that
would be the next one on it, so that no container idles while the answer of one call and the next
call travel. All others are refused, as they may find room elsewhere. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

CONTENDED_SECONDS = 1.0
"""How long nobody may wait after calls of two functions were refused: containers that never idle
are never evicted for the other one."""


class NextInLine:
    """The rule of one agent. Times are seconds of one clock, given by the caller."""

    def __init__(self) -> None:
        self._refused: Hashable = None
        self._contended_until = -math.inf

    def __repr__(self) -> str:
        return f"<NextInLine contended_until={self._contended_until:.3f}>"

    def found_no_room(self, key: Hashable, now: float) -> None:
        """There is no room for a container of the slot key ``key``."""
        if self._refused is not None and key != self._refused:
            self._contended_until = now + CONTENDED_SECONDS
        self._refused = key

    def places(self, alive: int, now: float) -> int:
        """Calls of one slot key that may wait behind its ``alive`` containers."""
        return 0 if now < self._contended_until else alive
