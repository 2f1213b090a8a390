"""Launch policy: when a function's queue gets another container, and how long its clients wait.

When the calls of a function get another container: the one rule, which whoever has the line of
waiting calls asks, a load balancer's placer or, where none of ours is in front, the runner's agent.
Pure; times are seconds of one clock, given by the caller.

Waiting is rent, a start is the price. A call that would wait for longer than a start takes has one
at once (ski rental: Karlin et al., "Competitive Randomized Algorithms for Nonuniform Problems",
Algorithmica 11, 1994). The others' rent is added up over all calls of the function (Dooly, Goldman
and Scott, "TCP Dynamic Acknowledgment Delay", STOC 1998): a call that waits 90 ms never regrets
it, a thousand such calls do. When the sum reaches the price, containers are started, in rounds.

Calls that are shorter than a start can be counted soon, so their rounds are judged: rounds double
as in TCP's slow start (RFC 5681) until one brings less than half of the throughput that it
promised. Then the machine is busy, or what the calls wait for is elsewhere. The containers of that
round are surplus, rounds are small from then on, and the next has to wait four times as long as
the one before.

How long the clients of a function wait before they leave, of those that don't say. Pure; times
are seconds of one clock, given by the caller.

Whoever was served has borne its wait, and would have borne more: such data are censored. The
Kaplan-Meier estimator (Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations",
Journal of the American Statistical Association 53, 1958; for callers in a telephone queue: Brown et
al., "Statistical Analysis of a Telephone Call Center", same journal 100, 2005) takes them into
account. So a client that leaves early among many that bear more counts for little.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from itertools import accumulate

import attrs

WEIGHT = 1 / 8
"""Of the latest time in a mean, as in TCP's round-trip estimate (RFC 6298)."""

WORTH = 0.75
"""Share of a start's time that a call's expected wait may be. Means are uncertain, and who begins
to start late has waited for nothing."""

MAX_PRICE = 2.0
"""Seconds. A start counts for no more, however long it takes."""

FIRST = 4
"""Containers of the first round, of those for which calls would wait for longer than for a
start."""

TINY = 1e-6
"""Seconds of rent that are lost by rounding."""

SOON = 0.001
"""Seconds until the next look at least."""

SHORTEST = 1e-6
"""Seconds that a call is taken to run at least."""

FORGET = 600.0
"""Seconds in which the least mean run time is forgotten by the factor e. It tells long calls from
those that a busy machine makes long."""

WINDOW = 0.4
"""Seconds over which throughput is measured at least."""

RUNS = 4
"""Calls of each container over which it is measured at least, where containers are doubled; where
there are fewer new ones so many times more. Each container may be at the begin or the end of a call
at either end of the window, which must not count for more than what the new ones bring."""

FEW = 8
"""Calls over which throughput is measured at least. Before, it is computed from the run time."""

MANY = 64
"""Calls over which it is measured where there are so many, up to twice of it."""

WANTED = 0.5
"""Share of the promised throughput that a round has to bring."""

BACKOFF = 3.0, 4.0, 600.0
"""Seconds until the round after the first that failed, factor for each further one, and the
most."""

IDLE_SECONDS = 30.0
"""In which rent is forgotten while nobody waits: a container that is started for it would not live
for longer without calls (the default idle timeout)."""


@attrs.define
class _Round:
    """Containers that were started together, until they are judged."""

    began: float
    alive: int
    """Containers before."""
    rate: float
    """Calls a second before."""
    added: int = 0
    owed: int = 0
    """Containers beside those ``added`` for which there was no call yet."""
    most: int = 1
    """Containers that it may have."""
    ready_at: float = math.inf
    calls: int = 0
    """That had ended when it was ready."""


class LaunchPolicy:
    """What is known of the calls of one function.

    ``run_seconds`` and ``start_seconds`` are means, 0 = not known. ``surplus`` is how many of its
    containers the rule would not start again; a load balancer tells the runners, and counts those
    that it has not told yet. ``look_at`` is when `launches` is to be asked again
    if nothing happens before. ``patience`` is that of the function's clients.
    """

    def __init__(self) -> None:
        self.run_seconds = self.start_seconds = self._least_run = 0.0
        self.surplus = 0
        self.patience = ClientPatience()
        self._standing = self._waiting = 0
        """Calls that wait, and those of them that pay rent."""
        self._since = 0.0
        self._rent = 0.0
        self._calls = 0
        self._ran_at = self._begun_at = self._served_at = -math.inf
        self._older = self._newer = 0.0, 0
        """Times, and calls that had ended then: between them and now throughput is measured."""
        self._round: _Round | None = None
        self._backoff = 0.0
        self._not_before = -math.inf
        self.look_at = math.inf

    def __repr__(self) -> str:
        return (
            f"<LaunchPolicy run={self.run_seconds:.6f} start={self.start_seconds:.3f} "
            f"rent={self._rent:.3f} backoff={self._backoff}>"
        )

    # --- what happens ---

    def ran(self, seconds: float, now: float) -> None:
        """A call has had a container for so long."""
        if seconds < SHORTEST:
            seconds = SHORTEST
        mean = self.run_seconds
        self.run_seconds = run = mean + WEIGHT * (seconds - mean) if mean else seconds
        least = self._least_run * (1 + (now - self._ran_at) / FORGET) if mean else run
        self._least_run = min(run, least)
        self._calls += 1
        self._ran_at = now

    def started(self, seconds: float) -> None:
        """A container was ready after so long, from when there was room for it."""
        mean = self.start_seconds
        self.start_seconds = mean + WEIGHT * (seconds - mean) if mean else seconds

    def waits(self, calls: int, now: float, *, room: bool = True) -> None:
        """From ``now`` on so many calls wait without a container, and there is ``room`` for one
        more container or there is not: then they pay no rent."""
        passed = self._pay(now)
        if calls and not self._standing:
            self._rent *= max(0.0, 1 - passed / IDLE_SECONDS)
            if now - self._served_at > WINDOW:
                self._older = self._newer = now, self._calls
        elif self._standing and not calls:
            self._served_at = now
        self._standing = calls
        self._waiting = calls if room else 0
        at, ended = self._newer
        if now - at >= self._window and self._calls - ended >= MANY:
            self._older, self._newer = self._newer, (now, self._calls)

    # --- what is asked ---

    @property
    def price(self) -> float:
        """Rent for which a container is started, in seconds; 0 = not known."""
        return min(self.start_seconds, MAX_PRICE)

    @property
    def has_failed(self) -> bool:
        """More containers have not helped lately."""
        return self._backoff > 0

    def served_soon(self, containers: int) -> int:
        """How many calls ``containers`` will have begun before a start would be over."""
        run = self.run_seconds
        return int(WORTH * self.price * containers / run) if run else 0

    def moves_for(self, calls: int, alive: int) -> float:
        """As `wait_for`, of a line that goes on as it did until its last call ended: that nothing
        has ended since then, as while runners are restarted, says nothing of the others."""
        return self.wait_for(calls, alive, self._ran_at)

    def wait_for(self, calls: int, alive: int, now: float) -> float:
        """Seconds until so many calls that wait have been served by ``alive`` containers (0 = not
        known how many); 0 = not known. A line that has come to a halt gets slower as time
        passes."""
        rate = self._rate(now, alive) if self.run_seconds else 0.0
        return calls / rate if rate else 0.0

    def launches(
        self, now: float, *, waiting: int, alive: int, starting: int, able: int = sys.maxsize
    ) -> int:
        """How many containers to start now for ``waiting`` calls that have none, while ``alive``
        ones are busy and ``starting`` ones on their way. The caller starts them, or says that it
        can't (`failed`). Asks to be called again when something has changed, or at `look_at`.

        Only ``able`` of the calls can have one started, the others are on their way already: what
        is due beyond that is started for calls that come next."""
        self._pay(now)
        self.look_at = math.inf
        if not able:
            return 0
        price, run = self.price, self.run_seconds
        serving = max(alive, min(1, starting))
        lacking, is_long = waiting - starting, self._least_run >= price
        if not run or not price:
            return max(0, min(lacking, able))  # of what is not known nothing is expected
        if lacking > 0 and not alive + starting:
            return self._begin(now, 1)
        if self._round is not None and not self._judge(self._round, now, alive, starting):
            return self._within(self._round, now, lacking, serving, able)
        if lacking <= 0:
            return 0
        due = now >= self._due_at
        unserved = lacking - self.served_soon(serving)
        if is_long:
            wanted = max(unserved, int(due))
        elif now < self._not_before:
            return self._unstick(now, self._not_before)
        elif self.has_failed:
            wanted = max(1, alive // 8) if due else 0
        else:
            wanted = max(min(unserved, max(FIRST, alive)), max(1, alive) if due else 0)
        wanted = min(wanted, lacking)
        count = min(wanted, able)
        if wanted <= 0:
            self._look(now, self._due_at)
        elif not is_long:
            most = wanted if self.has_failed else max(FIRST, alive)
            rate, owed = self._rate(now, alive), wanted - count
            self._round = _Round(now, alive, rate, added=count, owed=owed, most=most)
        return self._begin(now, count)

    def failed(self, count: int = 1) -> None:
        """Of the containers that were to start ``count`` will not come."""
        if self._round is not None:
            self._round.added -= count
            if self._round.added <= 0:
                self._round = None

    # --- inside ---

    @property
    def _window(self) -> float:
        return max(WINDOW, RUNS * self.run_seconds)

    def _window_of(self, round_: _Round) -> float:
        return max(WINDOW, RUNS * self.run_seconds * max(1, round_.alive / max(1, round_.added)))

    @property
    def _stuck_at(self) -> float:
        """When a line that does not move has stood still for so long that whatever was found out
        about more containers counts no more."""
        return max(self._ran_at, self._begun_at) + max(self.price, self._window)

    def _pay(self, now: float) -> float:
        """Add up the rent until ``now``; returns for how long."""
        passed, self._since = now - self._since, now
        self._rent += self._waiting * passed
        return passed

    @property
    def _due_at(self) -> float:
        """When the rent reaches the price, if nobody comes or goes."""
        lacking = self.price - self._rent
        if lacking <= TINY:
            return -math.inf
        return self._since + lacking / self._waiting if self._waiting else math.inf

    def _look(self, now: float, at: float) -> None:
        self.look_at = max(at, now + SOON)

    def _begin(self, now: float, count: int) -> int:
        if count > 0:
            self._rent = 0.0
            self._begun_at = now
        return max(0, count)

    def _within(self, round_: _Round, now: float, lacking: int, serving: int, able: int) -> int:
        """How many more to start while there is a round."""
        if lacking <= 0:
            return 0
        if round_.ready_at < math.inf:
            return self._unstick(now, round_.ready_at + self._window_of(round_))
        unserved = lacking - self.served_soon(serving)
        more = max(min(unserved, round_.most - round_.added), min(round_.owed, lacking))
        more = max(0, min(more, able))
        round_.added += more
        round_.owed = max(0, round_.owed - more)
        return more or self._unstick(now, self._lost_at(round_, starting=1))

    def _unstick(self, now: float, until: float) -> int:
        """How many to start although nothing is to be started ``until`` then."""
        at = max(self._stuck_at, self._due_at)
        self._look(now, min(until, at))
        return self._begin(now, int(now >= at))

    def _lost_at(self, round_: _Round, starting: int) -> float:
        """When containers that are not there yet will not come, of which so many are known to be
        on their way."""
        return round_.began + (4 * self.price + 1 if starting else 1.5 * self.price + WINDOW)

    def _rate(self, now: float, alive: int) -> float:
        at, calls = self._older
        if not self._standing or self._calls - calls < FEW or now <= at:
            return alive / self.run_seconds
        return (self._calls - calls) / (now - at)

    def _judge(self, round_: _Round, now: float, alive: int, starting: int) -> bool:
        """Whether ``round_`` is over; it is judged then."""
        if round_.ready_at == math.inf:
            lacking = round_.alive + round_.added - alive
            if starting or lacking > 0:
                if now < self._lost_at(round_, starting):
                    return False
                if starting or lacking >= round_.added:
                    # There was no room for it, or its calls have found idle containers.
                    self._round = None
                    self._not_before = now + self._backoff
                    return True
                round_.added -= lacking
            round_.ready_at, round_.calls = now, self._calls
            self._rent = 0.0
        passed = now - round_.ready_at
        if passed < self._window_of(round_):
            return False
        self._round = None
        self._older = self._newer = round_.ready_at, round_.calls
        rent, self._rent = self._rent, 0.0
        if rent < WANTED * passed or not round_.alive:
            return True  # hardly anybody has waited: there are enough now
        rate = (self._calls - round_.calls) / passed
        gain = rate / round_.rate - 1 if round_.rate else math.inf
        promised = round_.added / round_.alive
        if gain < WANTED * promised:
            first, factor, most = BACKOFF
            self._backoff = min(most, max(first, factor * self._backoff))
            self._not_before = now + self._backoff
            useful = math.ceil(max(0.0, gain) * round_.alive)
            self.surplus += max(0, round_.added - useful)
        elif gain >= 0.8 * promised:
            self._backoff, self.surplus = 0.0, 0
        else:
            self._not_before = now + self._backoff
        return True


EDGES = tuple(0.1 * 1.2**step for step in range(48))
"""Seconds at which the classes of waits begin, up to ten minutes."""

LEAST = 3.0
"""Clients that have to have left before anything is concluded; they count less with time."""

LEAVING = 0.05
"""Share of the clients whose wait may be longer than they bear."""

MARGIN = 0.85
"""Of the wait that clients bear: how long a wait will be is not known exactly."""

FORGET_CLIENTS = 30.0
"""Seconds in which what was learned is forgotten by the factor e."""

SHORTEST_PATIENCE = 0.25
"""Seconds. No client is refused for a shorter wait, however quickly others have left."""


class ClientPatience:
    """What is known of the clients of one function."""

    def __init__(self) -> None:
        self._left = [0.0] * len(EDGES)
        self._served = [0.0] * len(EDGES)
        self._leaving = 0.0
        self._faded_at = 0.0
        self._bound = math.inf

    def __repr__(self) -> str:
        return f"<ClientPatience bound={self._bound:.3f} left={self._leaving:.1f}>"

    def served(self, seconds: float, now: float) -> None:
        """A client was served after such a wait."""
        if seconds >= EDGES[0]:
            self._fade(now)
            self._served[bisect_right(EDGES, seconds) - 1] += 1

    def left(self, seconds: float, now: float, *, ran: float = 0.0) -> None:
        """A client has left after such a wait. (A shorter one than is told apart here has other
        reasons.) If its call ``ran`` for so many seconds by then, it counts as much as the wait was
        of the time that it bore: in first-in-first-out order each call may be served just when its
        client is about to leave."""
        if seconds >= EDGES[0]:
            self._fade(now)
            share, place = seconds / (seconds + ran), bisect_right(EDGES, seconds) - 1
            self._left[place] += share
            self._served[place] += 1 - share
            self._leaving += share
            self._bound = self._estimate()

    def bound(self, now: float) -> float:
        """The longest wait that nearly all clients bear; infinite if nobody knows."""
        if self._leaving:
            self._fade(now)
        return self._bound

    def _fade(self, now: float) -> None:
        passed = now - self._faded_at
        if passed < 1:
            return
        self._faded_at = now
        if not self._leaving and not any(self._served):
            return
        factor = math.exp(-passed / FORGET_CLIENTS)
        self._left = [factor * count for count in self._left]
        self._served = [factor * count for count in self._served]
        self._leaving *= factor
        self._bound = self._estimate()

    def _estimate(self) -> float:
        if self._leaving < LEAST:
            return math.inf
        exits = [left + served for left, served in zip(self._left, self._served, strict=True)]
        at_risk = [*accumulate(reversed(exits))][::-1]
        stay = 1.0
        for edge, left, all_of_them in zip(EDGES, self._left, at_risk, strict=True):
            if left:
                stay *= 1 - left / all_of_them
                if stay < 1 - LEAVING:
                    return max(SHORTEST_PATIENCE, MARGIN * edge)
        return math.inf
