"""Sending calls to where a hot container is about to be free, so that it does not idle while the
answer of one call and the next call travel. Pure.

One call may wait behind each hot container of a runner that says so (`LoadHint.slots`): it is the
next there. What is ahead in that way can't go elsewhere any more, so only short calls are, and
only while those that wait all ask for the same.
"""

from __future__ import annotations

import math

from ..abc import Runner

MAX_RUN_SECONDS = 0.5
"""Calls that run longer on average gain nothing by it."""
SHORT_RUN_SECONDS = 0.01
"""Calls that run no longer need not wait until a call has ended: a line of them moves so quickly
that it matters little on which runner they wait, and to wait here first costs more than it brings.
"""
RUNS = 4.0
"""Mean run times that a call may wait for its turn on a runner."""


class Ahead:
    """Of one line: its calls that are at each runner, by address."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._shares: dict[str, int] = {}
        self._starting: dict[str, int] = {}
        self._runners: dict[str, Runner] = {}
        self._in_flight: dict[str, int] = {}
        self.behind = 0
        """Calls that wait on runners behind those that run, or for a container that starts."""

    def __bool__(self) -> bool:
        """Whether a call is anywhere."""
        return bool(self._in_flight)

    def __repr__(self) -> str:
        return f"<Ahead in_flight={sum(self._in_flight.values())}>"

    def learn(self, runner: Runner, slots: int, share: int = 0, starting: int = 0) -> None:
        """``runner`` has so many containers behind which calls may wait, and others ``starting``.
        ``share`` calls may be there at once, because other LBs want in; 0 = none does."""
        address = runner.address
        self._runners[address] = runner
        calls = self._in_flight.get(address, 0)
        self.behind -= _beyond(calls, self._slots.get(address, 0))
        self.behind += _beyond(calls, slots)
        self._slots[address] = slots
        if starting:
            self._starting[address] = starting
        elif self._starting:
            self._starting.pop(address, None)
        if share:
            self._shares[address] = share
        elif self._shares:
            self._shares.pop(address, None)

    def forget(self) -> None:
        """Nothing is known of the runners any more, where no call is left."""
        self.behind = 0
        self._slots.clear()
        self._shares.clear()
        self._starting.clear()
        self._runners.clear()

    def begin(self, address: str) -> None:
        """A call goes there."""
        calls = self._in_flight[address] = self._in_flight.get(address, 0) + 1
        if calls > self._slots.get(address, calls) > 0:
            self.behind += 1

    def end(self, address: str) -> None:
        """It is over."""
        left = self._in_flight.get(address, 0) - 1
        if left >= self._slots.get(address, left + 1) > 0:
            self.behind -= 1
        if left:
            self._in_flight[address] = left
        else:
            del self._in_flight[address]

    def in_flight(self, address: str) -> int:
        """Calls that are there, or have been given a turn there."""
        return self._in_flight.get(address, 0)

    def containers(self, starting: int) -> int:
        """Containers that its calls use, as far as it is known, beside those that ``starting``
        calls have started."""
        told = own = 0
        for address, calls in self._in_flight.items():
            slots = self._slots.get(address, 0)
            told += slots
            own += 0 if slots else calls
        return told + max(0, own - starting)

    def starting(self) -> int:
        """Containers that are on their way there, as the runners said last."""
        return sum(self._starting.values()) if self._starting else 0

    def told(self) -> int:
        """Containers that its calls use, where all runners that have some tell how many; else 0."""
        slots = [self._slots.get(address, 0) for address in self._in_flight]
        return sum(slots) if all(slots) else 0

    def share(self, address: str) -> int:
        """Calls that may be there at once, because other LBs want in; 0 = none does."""
        return self._shares.get(address, 0) if self._shares else 0

    def may_join(self, address: str) -> bool:
        """Whether others have more there, where calls may wait."""
        return self.in_flight(address) < self.share(address)

    def may_send(self, address: str) -> bool:
        """Whether one more may go there when a call has ended there, which still counts, and the
        one to which its place was offered counts already."""
        limit = self.share(address) or 2 * self._slots.get(address, 0)
        return self.in_flight(address) - 1 < limit

    def shortest(self) -> Runner | None:
        """The runner where one more may go that has the fewest calls for its containers."""
        best, least = None, math.inf
        for address, slots in self._slots.items():
            calls = self._in_flight.get(address, 0)
            if slots and calls < (self.share(address) or 2 * slots) and calls < least * slots:
                best, least = self._runners[address], calls / slots
        return best

    def patience(self, address: str, run_seconds: float) -> float:
        """How long a call may wait there; 0 = not at all. ``run_seconds`` is the mean time that
        such calls run, 0 = not known: then it may be short."""
        if not self._slots.get(address) or run_seconds > MAX_RUN_SECONDS:
            return 0.0
        return RUNS * run_seconds or MAX_RUN_SECONDS


def _beyond(calls: int, slots: int) -> int:
    """Those of so many calls that have none of the ``slots``; none, if there is nothing known."""
    return max(0, calls - slots) if slots else 0
