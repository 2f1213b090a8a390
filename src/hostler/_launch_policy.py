"""Launch policy: when a function's queue gets another container, and how long its clients wait.
Pure.

The owner of a queue of waiting calls asks the policy: a load balancer's placer or, without a load
balancer of hostler's own, the runner's agent. Times are seconds of one clock, given by the caller.

Waiting is rent, a start is the price. A call that would wait for longer than a start takes has a
container started at once (ski rental: Karlin et al., "Competitive Randomized Algorithms for
Nonuniform Problems", Algorithmica 11, 1994). The rent of the other calls is added up over all calls
of the function (Dooly, Goldman and Scott, "TCP Dynamic Acknowledgment Delay", STOC 1998): a single
call that waits 90 ms never justifies a start, but a thousand such calls do. When the sum reaches
the price, containers are started, in rounds.

Calls that are shorter than a start give enough samples soon, so their rounds are judged. Rounds
double as in TCP's slow start (RFC 5681) until one brings less than half of the throughput that it
promised. Then the machine is busy, or the calls wait for something elsewhere. The containers of
that round are surplus. From then on rounds are small, and each waits four times as long as the one
before.

`ClientPatience` learns how long clients wait that don't say so. A served client has borne its wait,
and would have borne more: such data are censored. The Kaplan-Meier estimator (Kaplan and Meier,
"Nonparametric Estimation from Incomplete Observations", Journal of the American Statistical
Association 53, 1958; for callers in a telephone queue: Brown et al., "Statistical Analysis of a
Telephone Call Center", same journal 100, 2005) takes that into account. So a client that leaves
early among many that bear more counts for little.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from itertools import accumulate

import attrs

WEIGHT = 1 / 8
"""Weight of the latest time in a mean, as in TCP's round-trip estimate (RFC 6298)."""

WORTH = 0.75
"""A call's expected wait may be this share of a start's time. Means are uncertain, and a late start
makes the wait before it useless."""

MAX_PRICE = 2.0
"""Seconds. A start counts for no more, however long it takes."""

FIRST = 4
"""Containers of the first round at most, for calls that would wait for longer than a start."""

TINY = 1e-6
"""Seconds of rent that rounding may lose."""

SOON = 0.001
"""Minimum seconds until the next check."""

SHORTEST = 1e-6
"""Minimum seconds that a call is taken to run."""

FORGET = 600.0
"""Seconds in which the shortest run time fades by the factor e. It tells long calls from calls that
a busy machine makes long."""

WINDOW = 0.4
"""Minimum seconds over which throughput is measured."""

RUNS = 4
"""Minimum calls of each container over which throughput is measured, where a round doubles the
containers; in proportion more where it adds fewer. Each container may be at the begin or the end of
a call at either end of the window, which must count for less than what the new containers bring."""

FEW = 8
"""Minimum calls over which throughput is measured. With fewer calls it is computed from the run
time."""

MANY = 64
"""Calls over which throughput is measured where there are so many, up to twice as many."""

WANTED = 0.5
"""Share of the promised throughput that a round has to bring."""

BACKOFF = 3.0, 4.0, 600.0
"""Seconds until the round after the first failed one, factor for each further one, and the
maximum."""

IDLE_SECONDS = 30.0
"""Seconds in which rent is forgotten while no call waits: a container would not live for longer
without calls (the default idle timeout)."""


@attrs.define
class _Round:
    """Containers that were started together, until they are judged."""

    began: float
    alive: int
    """Containers before the round."""
    rate: float
    """Calls a second before the round."""
    added: int = 0
    owed: int = 0
    """Containers due beside the ``added`` ones, for which there was no call yet."""
    most: int = 1
    """Maximum of containers in the round."""
    ready_at: float = math.inf
    calls: int = 0
    """Calls that had ended when the round was ready."""


class LaunchPolicy:
    """The launch policy of one function.

    ``run_seconds`` and ``start_seconds`` are means, 0 = not known. ``surplus`` is how many of the
    function's containers the policy would not start again; a load balancer tells the runners, and
    counts the ones that it has not told yet. ``check_at`` is when to ask `launches` again if
    nothing happens before. ``patience`` is the patience of the function's clients.
    """

    def __init__(self) -> None:
        self.run_seconds = self.start_seconds = self._least_run = 0.0
        self.surplus = 0
        self.patience = ClientPatience()
        self._standing = self._waiting = 0
        """Calls that wait, and the ones of them that pay rent."""
        self._since = 0.0
        self._rent = 0.0
        self._calls = 0
        self._ran_at = self._begun_at = self._served_at = -math.inf
        self._older = self._newer = 0.0, 0
        """Times, and the number of calls that had ended then. Throughput is measured from there to
        now."""
        self._round: _Round | None = None
        self._backoff = 0.0
        self._not_before = -math.inf
        self.check_at = math.inf

    def __repr__(self) -> str:
        return (
            f"<LaunchPolicy run={self.run_seconds:.6f} start={self.start_seconds:.3f} "
            f"rent={self._rent:.3f} backoff={self._backoff}>"
        )

    # --- what happens ---

    def ran(self, seconds: float, now: float) -> None:
        """A call has had a container for ``seconds``."""
        if seconds < SHORTEST:
            seconds = SHORTEST
        mean = self.run_seconds
        self.run_seconds = run = mean + WEIGHT * (seconds - mean) if mean else seconds
        least = self._least_run * (1 + (now - self._ran_at) / FORGET) if mean else run
        self._least_run = min(run, least)
        self._calls += 1
        self._ran_at = now

    def started(self, seconds: float) -> None:
        """A container was ready ``seconds`` after there was room for it."""
        mean = self.start_seconds
        self.start_seconds = mean + WEIGHT * (seconds - mean) if mean else seconds

    def set_waiting(self, calls: int, now: float, *, room: bool = True) -> None:
        """From ``now`` on ``calls`` wait without a container. Without ``room`` for one more
        container they pay no rent."""
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

    def steady_wait_for(self, calls: int, alive: int) -> float:
        """As `wait_for`, for a queue that goes on as it did until its last call ended. A halt since
        then, as while runners restart, says nothing about the calls to come."""
        return self.wait_for(calls, alive, self._ran_at)

    def wait_for(self, calls: int, alive: int, now: float) -> float:
        """Seconds until ``calls`` waiting calls have been served by ``alive`` containers (0 =
        number not known); 0 = not known. A halted queue gets slower as time passes."""
        rate = self._rate(now, alive) if self.run_seconds else 0.0
        return calls / rate if rate else 0.0

    def launches(
        self, now: float, *, waiting: int, alive: int, starting: int, able: int = sys.maxsize
    ) -> int:
        """How many containers to start now for ``waiting`` calls without one, while ``alive``
        containers are busy and ``starting`` ones on their way. The caller starts them, or says that
        it can't (`failed`). Call again when something has changed, or at `check_at`.

        Only ``able`` of the calls can have a container started; the others are on their way
        already. Further containers that are due are started for the next calls.
        """
        self._pay(now)
        self.check_at = math.inf
        if not able:
            return 0
        price, run = self.price, self.run_seconds
        serving = max(alive, min(1, starting))
        lacking, is_long = waiting - starting, self._least_run >= price
        if not run or not price:
            return max(0, min(lacking, able))  # nothing is known that would justify a wait
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
            self._check(now, self._due_at)
        elif not is_long:
            most = wanted if self.has_failed else max(FIRST, alive)
            rate, owed = self._rate(now, alive), wanted - count
            self._round = _Round(now, alive, rate, added=count, owed=owed, most=most)
        return self._begin(now, count)

    def failed(self, count: int = 1) -> None:
        """``count`` of the containers that were to start will not come."""
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
        """When a queue that does not move has stood still for so long that the results of earlier
        rounds no longer count."""
        return max(self._ran_at, self._begun_at) + max(self.price, self._window)

    def _pay(self, now: float) -> float:
        """Add up the rent until ``now``. Returns the seconds since the last time."""
        passed, self._since = now - self._since, now
        self._rent += self._waiting * passed
        return passed

    @property
    def _due_at(self) -> float:
        """When the rent reaches the price, if no call comes or goes."""
        lacking = self.price - self._rent
        if lacking <= TINY:
            return -math.inf
        return self._since + lacking / self._waiting if self._waiting else math.inf

    def _check(self, now: float, at: float) -> None:
        self.check_at = max(at, now + SOON)

    def _begin(self, now: float, count: int) -> int:
        if count > 0:
            self._rent = 0.0
            self._begun_at = now
        return max(0, count)

    def _within(self, round_: _Round, now: float, lacking: int, serving: int, able: int) -> int:
        """How many more containers to start within ``round_``."""
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
        """How many containers to start although none is due ``until`` then: one, if the queue is
        stuck."""
        at = max(self._stuck_at, self._due_at)
        self._check(now, min(until, at))
        return self._begin(now, int(now >= at))

    def _lost_at(self, round_: _Round, starting: int) -> float:
        """When containers of ``round_`` that have not come will not come, if ``starting`` ones are
        known to be on their way."""
        return round_.began + (4 * self.price + 1 if starting else 1.5 * self.price + WINDOW)

    def _rate(self, now: float, alive: int) -> float:
        at, calls = self._older
        if not self._standing or self._calls - calls < FEW or now <= at:
            return alive / self.run_seconds
        return (self._calls - calls) / (now - at)

    def _judge(self, round_: _Round, now: float, alive: int, starting: int) -> bool:
        """Whether ``round_`` is over. If so, it is judged."""
        if round_.ready_at == math.inf:
            lacking = round_.alive + round_.added - alive
            if starting or lacking > 0:
                if now < self._lost_at(round_, starting):
                    return False
                if starting or lacking >= round_.added:
                    # There was no room for the round, or its calls have found idle containers.
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
            return True  # hardly any call has waited: there are enough containers now
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
"""Clients that must have left before anything is concluded; they count less as time passes."""

LEAVING = 0.05
"""Share of the clients whose wait may be longer than they bear."""

MARGIN = 0.85
"""Factor on the wait that clients bear, because a wait is not known exactly in advance."""

FORGET_CLIENTS = 30.0
"""Seconds in which what was learned fades by the factor e."""

SHORTEST_PATIENCE = 0.25
"""Seconds. No client is refused for a shorter wait, however quickly others have left."""


class ClientPatience:
    """How long the clients of one function wait before they leave, as far as is known."""

    def __init__(self) -> None:
        self._left = [0.0] * len(EDGES)
        self._served = [0.0] * len(EDGES)
        self._leaving = 0.0
        self._faded_at = 0.0
        self._bound = math.inf

    def __repr__(self) -> str:
        return f"<ClientPatience bound={self._bound:.3f} left={self._leaving:.1f}>"

    def served(self, seconds: float, now: float) -> None:
        """A client was served after a wait of ``seconds``."""
        if seconds >= EDGES[0]:
            self._fade(now)
            self._served[bisect_right(EDGES, seconds) - 1] += 1

    def left(self, seconds: float, now: float, *, ran: float = 0.0) -> None:
        """A client has left after a wait of ``seconds``, when its call had run for ``ran`` seconds.
        It counts by the share of the wait in all the time that it bore: in first-in-first-out order
        each call may be served just when its client is about to leave. Waits shorter than the first
        class don't count: they end for other reasons."""
        if seconds >= EDGES[0]:
            self._fade(now)
            share, place = seconds / (seconds + ran), bisect_right(EDGES, seconds) - 1
            self._left[place] += share
            self._served[place] += 1 - share
            self._leaving += share
            self._bound = self._estimate()

    def bound(self, now: float) -> float:
        """The longest wait that nearly all clients bear; infinite if not known."""
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
