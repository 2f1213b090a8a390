"""Containers that are kept ready ahead of calls.

Such a container is launched only into room that nothing else uses or waits for. As long as it is
wanted, it is neither frozen nor retired, is evicted last, and is replaced when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import attrs
import structlog
import trio

from .._concurrency.alarm import Alarm
from ..calls import PendingCall
from .container import Container
from .slots import SlotQueues
from .template import ContainerTemplate, TemplateLauncher

log = structlog.get_logger(__name__)

LINGER = 3600.0
"""Seconds after its last call for which a function's annotation is followed: functions change their
configuration, and with it their slot key, without notice."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a function's containers are replaced again; doubled each time."""
RESET_SECONDS = 2 * LONGEST_PAUSE
"""Seconds after which the next replacement counts as the first one again."""


@attrs.define(eq=False)
class _Wish:
    """The containers that are wanted for one slot key. Times are those of `trio.current_time`."""

    key: Hashable
    template: ContainerTemplate
    holds: dict[WarmHold, int] = attrs.Factory(dict)
    annotated: int = 0
    annotated_until: float = -math.inf
    rounds: int = 0
    last_round: float = -math.inf

    def count(self, now: float) -> int:
        """How many containers are wanted."""
        annotated = self.annotated if now < self.annotated_until else 0
        return max(annotated, *self.holds.values(), 0)

    def next_round(self, now: float) -> float:
        """When launching may be tried again. The pauses keep a function that can't live from
        keeping the machine busy."""
        if now - self.last_round > RESET_SECONDS:
            self.rounds = 0
        if not self.rounds:
            return now
        return self.last_round + min(FIRST_PAUSE * 2.0 ** min(self.rounds - 1, 20), LONGEST_PAUSE)

    def launched(self, now: float) -> None:
        self.rounds += 1
        self.last_round = now


class WarmHold:
    """Keeps ``count`` containers of one function ready, until it is released."""

    def __init__(self, keeper: WarmPool, key: Hashable, count: int) -> None:
        self.count = count
        self._keeper = keeper
        self._key = key

    def __repr__(self) -> str:
        return f"<WarmHold {self._keeper.queues.alive(self._key)} of {self.count}>"

    async def wait_ready(self) -> None:
        """Wait until there are as many containers as are to be kept. Waits for ever if they can't
        be launched: use a deadline. Cancellable."""
        await self._keeper.wait_alive(self._key, self.count)

    def release(self) -> None:
        """Keep nothing any more: the containers idle out as others do. Synchronous. Idempotent."""
        self._keeper.release(self._key, self)


class WarmPool:
    """Knows what is wanted, and launches what is missing."""

    def __init__(self, queues: SlotQueues[Container], launcher: TemplateLauncher) -> None:
        self.queues = queues
        self._launcher = launcher
        self._wishes: dict[Hashable, _Wish] = {}
        self._alarm = Alarm()
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<WarmPool functions={len(self._wishes)}>"

    def hold(self, key: Hashable, template: ContainerTemplate, count: int) -> WarmHold:
        """Keep ``count`` containers of ``key`` ready. Of several holds the largest counts."""
        hold = WarmHold(self, key, count)
        wish = self._wishes.setdefault(key, _Wish(key, template))
        wish.holds[hold] = count
        wish.template = template
        self._adapt(wish)
        return hold

    def release(self, key: Hashable, hold: WarmHold) -> None:
        wish = self._wishes.get(key)
        if wish is not None and wish.holds.pop(hold, None) is not None:
            self._adapt(wish)

    def expect(self, key: Hashable, count: int, call: PendingCall) -> None:
        """``call`` has come; its function wants ``count`` containers kept."""
        wish = self._wishes.get(key)
        if wish is None:
            if not count:
                return
            wish = self._wishes[key] = _Wish(key, self._launcher.template_of(call))
        news = wish.annotated != count
        wish.annotated = count
        wish.annotated_until = trio.current_time() + LINGER
        if news:
            self._adapt(wish)

    def settle(self) -> None:
        """A container is gone, or room has become free: launch what is missing."""
        for wish in tuple(self._wishes.values()):
            self._adapt(wish)

    def close(self) -> None:
        """Want nothing any more."""
        for key in self._wishes:
            self.queues.keep(key, 0)
        self._wishes.clear()

    def note_ready(self) -> None:
        """A container is ready."""
        self._changed.set()

    async def wait_alive(self, key: Hashable, count: int) -> None:
        while self.queues.alive(key) < count:
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Launch and forget what is due at a time, without an event. Never returns."""
        while True:
            await self._alarm.take(self._next_time(), trio.sleep_forever)
            self.settle()

    def _adapt(self, wish: _Wish) -> None:
        now = trio.current_time()
        count = wish.count(now)
        self.queues.keep(wish.key, count)
        if not count:
            self._wishes.pop(wish.key, None)
            return
        missing = count - self._coming(wish)
        if missing > 0 and now >= wish.next_round(now):
            self._launch_all(wish, missing, now)
        self._alarm.end_at(min(self._alarm.until, self._time_of(wish, now)))

    def _launch_all(self, wish: _Wish, missing: int, now: float) -> None:
        for number in range(missing):
            if not self._launcher.launch_spare(wish.key, wish.template.again()):
                log.debug("no room to keep containers ready", missing=missing - number)
                return
            if not number:
                wish.launched(now)

    def _coming(self, wish: _Wish) -> int:
        """Containers that live or start."""
        return self.queues.alive(wish.key) + self.queues.starting(wish.key)

    def _next_time(self) -> float:
        now = trio.current_time()
        return min((self._time_of(wish, now) for wish in self._wishes.values()), default=math.inf)

    def _time_of(self, wish: _Wish, now: float) -> float:
        """When to look at ``wish`` again, unless an event comes first."""
        times = [math.inf]
        if wish.annotated and now < wish.annotated_until:
            times.append(wish.annotated_until)
        if wish.count(now) > self._coming(wish):
            retry = wish.next_round(now)
            if retry > now:
                times.append(retry)
        return min(times)
