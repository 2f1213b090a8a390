"""What a peer may make a server do for nothing, before its connection is ended.

A frame that asks for nothing, or a stream that is reset before it was answered, costs the peer next
to nothing and the server a lot: it is how HTTP/2 servers are attacked (rapid reset, CVE-2023-44487,
and the floods of CVE-2019-9511 to 9518). Good peers send such frames as well, but in proportion to
useful work."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Flood(Exception):
    """The peer has used up its budget. The text says of what."""


class Budget:
    """A token bucket (ITU-T I.371) that work fills, too.

    It holds ``burst`` tokens at most, is full at first, and gets ``rate`` tokens a second beside
    those that are `earn`ed. ``what`` is spent, for the text of the `Flood`."""

    def __init__(
        self,
        what: str,
        *,
        burst: float,
        rate: float,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._what = what
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._clock = clock
        self._filled_at = clock()

    def __repr__(self) -> str:
        return f"<Budget {self._tokens:.0f} of {self._burst:.0f} {self._what}>"

    def earn(self, tokens: float) -> None:
        """The peer has had useful work done. Synchronous."""
        self._tokens = min(self._burst, self._tokens + tokens)

    def spend(self, tokens: int = 1) -> None:
        """Take ``tokens``. Synchronous. Raises `Flood` if there are fewer."""
        if not self.take(tokens):
            raise Flood(f"too many {self._what}")

    def take(self, tokens: int) -> bool:
        """Take ``tokens``, as a debt if there are fewer; whether there were so many."""
        self._tokens -= tokens
        return self._tokens >= 0 or self.wait_for(0) == 0

    def wait_for(self, tokens: int) -> float:
        """Seconds until there are ``tokens``, if none are spent meanwhile."""
        if self._tokens < tokens:
            now = self._clock()
            self.earn((now - self._filled_at) * self._rate)
            self._filled_at = now
        return max(0.0, (tokens - self._tokens) / self._rate)
