"""What the placers have in common: they differ only in the order in which they try the runners."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial

import attrs
import trio

from ..abc import LoadListener, Placer, Runner, RunnerCall, RunnerPool
from ..config import PlacerConfig
from ..errors import ServerBusy
from ..metrics import LBMetrics, default_metrics
from ..models import Call
from ..protocol import LoadHint
from ._fleet import Fleets
from ._hedging import Hedging
from ._ladder import Ladder
from ._loads import LoadBook
from ._order import without
from ._placement import Means, Placement
from ._room import Line, Room
from ._tracker import AttemptTracker
from ._trying import Trying
from ._warm_index import MAX_NEEDS, Need

JITTER = (0.75, 1.25)
"""Range of the random factor on the pause between sweeps."""
PROBES = 2
"""Runners that say that they are full which a call that waits tries all the same, now and then:
the room that they have for a moment between two calls is never told."""
MIB = 2**20


@attrs.frozen(kw_only=True)
class PlacerStatistics:
    """Calls under way in a placer, and how many of them wait for a runner."""

    calls: int
    waiting: int


class SweepPlacer(Placer, LoadListener):
    """Tries the runners of the pool in some order; calls that none takes wait in line.

    A placer of your own is a subclass with an `order`. ``metrics`` are the process's own by
    default. ``rng`` is where jitter and random orders come from; tests give a seeded one.
    """

    def __init__(
        self,
        config: PlacerConfig | None = None,
        *,
        metrics: LBMetrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config or PlacerConfig()
        self._metrics = metrics or default_metrics()
        self._rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
        self._rooms: dict[int, Room] = {}
        self._left: tuple[RunnerPool, Room] | None = None
        """The room that all calls have left last: the next one most often comes back to it."""
        self._placements: set[Placement] = set()
        self._closed = False
        self._hedging = Hedging(self._config.hedge_quantile, self._config.hedge_percent)
        self._waits_for_room = True
        self.loads = LoadBook()
        """What is known of the runners' load."""
        tracker = AttemptTracker(self._metrics, self.loads)
        self._means = Means(
            config=self._config,
            tracker=tracker,
            trying=Trying(tracker, self._hedging, self._config),
            waits=self.waits,
            at_once=self.at_once
            if _knows_first(type(self))
            else partial(SweepPlacer.at_once, self),
            order=self._order_of,
        )
        self.fleets = Fleets()
        """The lists of runners that the pools have given."""

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {state} {self.statistics()}>"

    @property
    def config(self) -> PlacerConfig:
        return self._config

    @abstractmethod
    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterable[Runner]:
        """The order in which a sweep tries ``runners``, which are not empty: each once.

        Called once per sweep; an iterator is only asked on after a runner did not take the call.
        """

    def at_once(
        self, call: RunnerCall, need: Need, runners: Sequence[Runner], now: float
    ) -> Runner | None:
        """The first of `order`, if it is found without that, and no reason is known why it should
        refuse ``call``; ``None``, as by default, if it is not. Asked once per sweep, only then is
        `order`. Who inherits it and has another `order` is not asked.
        """
        return None

    def waits(self, call: RunnerCall, need: Need, now: float) -> bool:
        """Whether ``call``, which is new, shall rather wait for a container that another call of
        its function has now than have one started, as long as the function's `LaunchPolicy` says
        so."""
        return False

    def forbearance(self, need: Need) -> float:
        """Seconds for which a call that is new should rather wait than have hot containers evicted
        that are worth keeping."""
        return 0.0

    def statistics(self) -> PlacerStatistics:
        return PlacerStatistics(
            calls=len(self._placements),
            waiting=sum(room.waiting for room in self._rooms.values()),
        )

    async def place_call(self, pool: RunnerPool, call: RunnerCall) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise ServerBusy
        config = self._config
        detached = call.model.type == "detached"
        seconds = config.detached_placer_timeout if detached else config.placer_timeout
        need, now = need_of(call), trio.current_time()
        gentle_until = now + self.forbearance(need)
        room = self._rooms.get(id(pool)) or self._open_room(pool)
        line = room.use(need.key)
        line.need = need
        line.policy = policy = self.loads.policies.of(need)
        line.patience = policy.patience
        placement = Placement(
            self._means,
            pool,
            call,
            need,
            room,
            line,
            now,
            now + seconds,
            gentle_until,
            self._waits_for_room,
        )
        self._placements.add(placement)
        try:
            await placement.run()
        finally:
            self._placements.discard(placement)
            if room.leave(need.key, line):
                self._left = pool, self._rooms.pop(id(pool))

    def _order_of(
        self, placement: Placement, runners: Sequence[Runner], tried: Runner | None
    ) -> Iterable[Runner]:
        """The order of a sweep without the runners that would certainly refuse the call, and
        without the one that was ``tried`` before it was asked for."""
        if not runners:
            return ()
        room, need, probes, now = placement.room, placement.need, 0, trio.current_time()
        # The one that has waited longest probes for all; and who has nothing there, at once.
        if (placement.sweeps > 1 or not placement.line.ahead) and room.is_first(placement.ticket):
            probes = self._probes(room, now)
        gentle = now < placement.gentle_until
        if tried is None and self._all_full(need, runners, now, gentle=gentle):
            return self._unheld(self._rng.sample(runners, min(probes, len(runners))), now)

        begins = True

        def is_full(runner: Runner) -> bool:
            nonlocal begins
            at, begins = now if begins else trio.current_time(), False
            return self._is_full(need, runner, at, gentle=gentle)

        order = self.order(placement.call, runners)
        if tried is not None:
            order = (runner for runner in order if runner is not tried)
        return without(self._unheld(order, now), is_full, probes)

    def stop_waiting(self) -> None:
        self._waits_for_room = False
        for placement in tuple(self._placements):
            placement.stop_waiting()

    def _is_full(self, need: Need, runner: Runner, now: float, *, gentle: bool) -> bool:
        return self.loads.is_full(runner.address, need, now, gentle=gentle)

    def _is_full_for(self, runner: Runner, line: Line) -> bool:
        return self._is_full(line.need, runner, trio.current_time(), gentle=line.gentle)

    def _unheld(self, runners: Iterable[Runner], now: float) -> Iterator[Runner]:
        """Not even a probe is to take what was left to others."""
        return (runner for runner in runners if not self.loads.is_held(runner.address, now))

    def _probes(self, room: Room, now: float) -> int:
        """How many runners may be tried now although they say that they are full."""
        if now < room.probe_at:
            return 0
        room.probe_at = now + self._config.retry_max_delay
        return PROBES

    def _all_full(self, need: Need, runners: Sequence[Runner], now: float, *, gentle: bool) -> bool:
        """Whether `_is_full` is certainly true of all, found out without asking for each."""
        if not self.loads.all_full(need, now, gentle=gentle):
            return False
        fleet, known = self.fleets.of(runners), self.loads.tellers
        if fleet.all_tell_since != known:
            fleet.all_tell_since = known if self.loads.all_tell(fleet.addresses) else None
        return fleet.all_tell_since == known

    def note_load(self, pool: RunnerPool, runner: Runner, hint: LoadHint | None) -> None:
        self.loads.note(runner.address, hint, trio.current_time())
        room = self._rooms.get(id(pool))
        if room is not None and hint is not None:
            if self.loads.is_held(runner.address, trio.current_time()):
                return
            free_cpus = math.inf if hint.free_cpus is None else hint.free_cpus
            memory = hint.free_memory + hint.reclaimable_memory
            cpus = free_cpus + hint.reclaimable_cpus
            room.fill(runner, memory, cpus, worthy=(hint.worthy_memory, hint.worthy_cpus))
            if hint.warm:
                room.wake_hot(runner, self._warm_at(runner))

    def _warm_at(self, runner: Runner) -> Callable[[Line], int]:
        now = trio.current_time()
        return lambda line: self.loads.warm_count(runner.address, line.need, now)

    def close(self) -> None:
        self._closed = True
        for placement in tuple(self._placements):
            placement.refuse()

    def _open_room(self, pool: RunnerPool) -> Room:
        """The waiting room of ``pool``, which is there as long as calls are under way."""
        if self._left is not None and self._left[0] is pool:
            room = self._left[1]
        else:
            room = self._make_room()
            pool.add_load_listener(self)
        self._rooms[id(pool)] = room  # the caller holds the pool: no other has this id
        return room

    def _make_room(self) -> Room:
        return Room(self._make_ladder, is_full=self._is_full_for, max_wait=self._config.max_wait)

    def _make_ladder(self) -> Ladder:
        config = self._config
        return Ladder(
            config.retry_all_delay, config.retry_max_delay, lambda: self._rng.uniform(*JITTER)
        )


def _knows_first(placer: type[SweepPlacer]) -> bool:
    """Whether its `SweepPlacer.at_once` is about its own order."""
    for each in placer.__mro__:
        if "at_once" in vars(each):
            return True
        if "order" in vars(each):
            return False
    return False


def need_of(call: RunnerCall) -> Need:
    """What a runner must have room for. Calls that need the same stand in one line.

    Extensions are left out: only a driver knows which of them make another container.
    """
    model: Call = call.model
    return _need(
        call.slot_hash_id,
        model.fn_id,
        model.image,
        model.memory,
        model.tmpfs_size,
        model.cpus,
        model.idle_timeout,
    )


@lru_cache(maxsize=MAX_NEEDS)
def _need(
    slot_hash_id: bytes | None,
    fn_id: str,
    image: str,
    memory: int,
    tmpfs_size: int,
    cpus: int,
    idle_timeout: int,
) -> Need:
    return Need(
        # (A text remembers its hash, and each call looks for its kind at a dozen places.)
        repr((slot_hash_id, fn_id, image, memory, tmpfs_size, cpus)),
        memory=(memory + tmpfs_size) * MIB,
        idle_seconds=idle_timeout,
        cpus=cpus,
    )
