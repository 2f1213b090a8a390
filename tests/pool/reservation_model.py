"""A runner that takes reservations, as a model: what it does is drawn from a random source.

It stands in the place of the wire: the placer, the runner object, the race and the conversation
above it are the real ones. It is honest where the property needs it (frames of one stream arrive
in order, what was given up before it arrived has not run) and hostile where it may be: it
refuses, fails, hangs, dies at any step, forgets what reservations are, and is slow.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from hostler.protocol import (
    UNKNOWN_STATUS,
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    Data,
    EngagementFailed,
    Finished,
    LoadHint,
    LogCollector,
    NotSent,
    Reserved,
    ResultStart,
    RunnerClient,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)

TICK = 0.001
"""Seconds. All times are whole ticks, so that much happens in the same moment."""
UNAVAILABLE = 14
BUSY = Finished(success=False, error_code=503)
BROKEN = Finished(success=False, error_code=502, error_text="no image")
DONE = Finished(success=True, load=LoadHint(reserves=True))


@attrs.define
class Ledger:
    """What became of calls, over all runners of a schedule."""

    runs: Counter[str] = attrs.Factory(Counter)
    commits: Counter[str] = attrs.Factory(Counter)
    open: int = 0
    """Engagements."""


@attrs.frozen
class Fate:
    """How one engagement goes, drawn before it begins. Times in seconds."""

    connect: float
    sent: bool
    slot: float
    """Until there is a slot, or a refusal."""
    answer: str
    """To a reservation, or to a call."""
    hand_over: float
    commit_sent: bool
    limit: float
    """How long the slot is held."""
    run: float
    dies: bool
    """While the call runs."""


def draw_fate(rng: random.Random, *, calm: bool) -> Fate:
    """``calm``: a runner that takes every call, sooner or later."""
    choose = rng.choice
    trouble = ("slot", "slot", "slot", "busy", "busy", "broken", "dead", "mute", "ignorant")
    return Fate(
        connect=choose((0, 0, 1, 2)) * TICK,
        sent=calm or rng.random() > 0.1,
        slot=choose((0, 1, 2, 3, 5, 8, 30)) * TICK,
        answer="slot" if calm else choose(trouble),
        hand_over=choose((0, 0, 0, 1, 3, 50)) * TICK,
        commit_sent=calm or rng.random() > 0.1,
        limit=choose((1, 2, 4, 100)) * TICK,
        run=choose((0, 1, 4)) * TICK,
        dies=not calm and rng.random() < 0.1,
    )


class ModelEngagement(ClientEngagement):
    """The LB's end of it; also what the runner behind it does. No task is needed: nothing happens
    there that the LB could see at any other time than when it looks."""

    def __init__(
        self, ledger: Ledger, fate: Fate, call_id: str, observer: AttemptObserver, *, reserve: bool
    ) -> None:
        self._observer = observer
        self._ledger = ledger
        self._fate = fate
        self._call_id = call_id
        self._slot_at = trio.current_time() + fate.slot
        self._refused_at = math.inf
        self._frames: list[RunnerFrame | EngagementFailed | None] = []
        if not reserve:
            self._take()
        elif fate.answer == "ignorant":
            self._frames = [EngagementFailed(UNKNOWN_STATUS, "expected ClientMsg_Try")]
        elif fate.answer == "slot":
            self._frames = [Reserved()]
            self._refused_at = self._slot_at + fate.limit
        else:
            self._answer()

    def _answer(self) -> None:
        """The call did not run."""
        answers: dict[str, list[RunnerFrame | EngagementFailed | None]] = {
            "busy": [BUSY, None],
            "broken": [BROKEN, None],
            "dead": [EngagementFailed(UNAVAILABLE, "gone")],
            "mute": [],
        }
        self._frames = answers[self._fate.answer]

    def _take(self) -> None:
        """The whole call is there. What never answers to that is for a client's patience."""
        if self._fate.answer in ("slot", "ignorant", "mute"):
            self._run()
        else:
            self._answer()

    def _run(self) -> None:
        self._ledger.runs[self._call_id] += 1
        if self._fate.dies:
            self._frames = [EngagementFailed(UNAVAILABLE, "gone")]
        else:
            self._frames = [ResultStart(200), Data(self._call_id.encode()), DONE, None]

    async def send(self, frame: Data) -> None:
        raise AssertionError("all bodies fit into the first frame")

    async def commit(self, first: Data | None) -> None:
        assert first is not None
        await trio.sleep(self._fate.hand_over)
        if not self._fate.commit_sent:
            raise NotSent("the connection broke before the commit")
        if trio.current_time() >= self._refused_at:
            self._frames = [BUSY, None]
            if self._fate.limit > 2 * TICK:
                return  # and the end of the stream had been seen
        else:
            self._frames = []
            self._run()
        self._ledger.commits[self._call_id] += 1
        self._observer.committed()

    async def receive(self) -> RunnerFrame | None:
        await trio.sleep_until(self._slot_at)
        if not self._frames:
            await trio.sleep_until(self._refused_at)
            await trio.sleep_forever()
        frame = self._frames.pop(0)
        if isinstance(frame, ResultStart):
            await trio.sleep(self._fate.run)
        if isinstance(frame, EngagementFailed):
            raise frame
        return frame


class ModelClient(RunnerClient):
    """A runner whose engagements go as ``draw`` says."""

    def __init__(self, address: str, ledger: Ledger, draw: Callable[[], Fate]) -> None:
        self._address = address
        self._ledger = ledger
        self._draw = draw

    @property
    def address(self) -> str:
        return self._address

    @asynccontextmanager
    async def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        observer: AttemptObserver = UNOBSERVED,
    ) -> AsyncIterator[ModelEngagement]:
        fate = self._draw()
        await trio.sleep(fate.connect)
        if not fate.sent:
            raise NotSent("refused")
        self._ledger.open += 1
        try:
            engagement = ModelEngagement(
                self._ledger, fate, request_id, observer, reserve=try_call.reserve
            )
            if try_call.reserve:
                observer.asked()
            else:
                self._ledger.commits[request_id] += 1
                observer.committed()
            yield engagement
        finally:
            self._ledger.open -= 1

    async def status(self, payload: str | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus(reservations=True)

    async def configure(self, config: Mapping[str, str]) -> None:
        raise AssertionError

    def stream_logs(self) -> AbstractAsyncContextManager[LogCollector]:
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
