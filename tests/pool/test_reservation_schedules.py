"""No call runs twice and none is lost, whatever happens in whatever order: random schedules.

Each schedule is one or two calls on up to three runners (`reservation_model`), with every time
and every mishap drawn from a seed, on virtual time. Many run side by side in one Trio loop, which
is what makes them cheap; they share nothing. HOSTLER_SCHEDULES sets how many (100 000 take five
minutes of CPU; give pytest a ``--timeout`` that allows for it).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs
import pytest
import trio
from trio.testing import MockClock

from hostler.abc import Runner, RunnerCall
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.config import PlacerConfig
from hostler.errors import ServerBusy
from hostler.pool import GrpcRunner, SweepPlacer
from hostler.pool.attempts import MIN_SAMPLES
from hostler.pool.placer import need_of
from hostler.pool.runner import Attempt

from .fakes import FakePool, RecordingWriter, fresh_metrics, make_call
from .placers import is_idle
from .reservation_model import TICK, Ledger, ModelClient, draw_fate

SCHEDULES = int(os.environ.get("HOSTLER_SCHEDULES", "4000"))
SIDE_BY_SIDE = 500
SEED = 20130201

METRICS = fresh_metrics()


class RandomOrder(SweepPlacer):
    def order(self, call: RunnerCall, runners: Sequence[Runner]) -> Iterable[Runner]:
        return self.rng.sample(runners, len(runners))


@attrs.define
class Tally:
    """What all schedules came to."""

    ends: Counter[str] = attrs.Factory(Counter)
    duplicates: list[str] = attrs.Factory(list)
    """Calls that ran twice."""
    lost: list[str] = attrs.Factory(list)
    """Calls that ended as they must not, or were answered wrongly."""
    left: list[int] = attrs.Factory(list)
    """Seeds of schedules that left something behind."""


class Schedule:
    """One of them, all of it drawn from ``seed``."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self.seed = seed
        self._rng = rng = random.Random(seed)
        self._tally = tally
        self._ledger = Ledger()
        self._calm = rng.random() < 0.3
        self._placer = RandomOrder(
            PlacerConfig(
                placer_timeout=60.0 if self._calm else 0.2,
                attempt_timeout=0.01,
                reserve_timeout=rng.choice((4, 20, 1000)) * TICK,
                hedge_quantile=0.9,
                hedge_percent=rng.choice((0, 100, 100)),
            ),
            metrics=METRICS,
            rng=rng,
        )
        self._pool = FakePool([self._runner(n) for n in range(rng.randint(1, 3))])
        self._closes_at = rng.choice((None, None, None, rng.randint(0, 40) * TICK))

    def _runner(self, number: int) -> GrpcRunner:
        rng = self._rng
        client = ModelClient(f"r{number}", self._ledger, lambda: draw_fate(rng, calm=self._calm))
        runner = GrpcRunner(client)
        runner._reserves = rng.random() > 0.2  # as it has said, or has not said yet
        return runner

    def _teach(self, call: PendingCall) -> None:
        hedging, key = self._placer._hedging, need_of(call).key
        delay = self._rng.choice((0, 1, 2, 3)) * TICK
        for _ in range(MIN_SAMPLES):
            hedging.took(key, delay)
            hedging.begin("")

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._rng.randint(1, 2)):
                nursery.start_soon(self._one, f"{self.seed}-{number}")
            if self._closes_at is not None:
                await trio.sleep(self._closes_at)
                self._placer.close()
        if self._ledger.open or not is_idle(self._placer):
            self._tally.left.append(self.seed)

    async def _one(self, call_id: str) -> None:
        rng, runs = self._rng, self._ledger.runs
        writer = RecordingWriter()
        call = make_call(call_id, body=BytesBody(b"body"), writer=writer)
        call.request_id = call_id
        self._teach(call)
        patience = rng.choice((None, None, rng.randint(0, 60) * TICK))
        await trio.sleep(rng.choice((0, 0, 1)) * TICK)
        kind = "cancelled"
        with trio.CancelScope() as scope:
            if patience is not None:
                scope.deadline = trio.current_time() + patience
            try:
                await self._placer.place_call(self._pool, call)
                kind = "done"
            except ServerBusy:
                kind = "busy"
            except Exception:  # (a placed call's; that it is told is enough)
                kind = "failed"
        self._tally.ends[kind] += 1
        if runs[call_id] > 1:
            self._tally.duplicates.append(call_id)
        can_not_fail = self._calm and self._closes_at is None and patience is None
        right = {
            "done": writer.data == call_id.encode() and runs[call_id] == 1,
            "busy": runs[call_id] == 0 and not writer.heads and not can_not_fail,
            "failed": not self._calm,
            "cancelled": patience is not None,
        }
        if not right[kind]:
            self._tally.lost.append(f"{call_id} {kind}")


async def _side_by_side(first: int, count: int, tally: Tally) -> None:
    async with trio.open_nursery() as nursery:
        for seed in range(first, first + count):
            nursery.start_soon(Schedule(seed, tally).run)


def run_all(count: int, patch: pytest.MonkeyPatch) -> Tally:
    # The same in all of them, and slow.
    patch.setattr("hostler.pool.runner.encode_call", lambda model: "{}")
    # Trio's order of tasks is drawn from the seed, too.
    patch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    tally = Tally()
    for first in range(0, count, SIDE_BY_SIDE):
        trio._core._run._r.seed(SEED + first)
        batch = min(SIDE_BY_SIDE, count - first)
        trio.run(_side_by_side, SEED + first, batch, tally, clock=MockClock(autojump_threshold=0))
    return tally


@pytest.mark.slow
def test_no_call_runs_twice_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = (METRICS.hedges, METRICS.hedges_won, METRICS.reservations_abandoned)
    before = [count.value for count in counts]
    tally = run_all(SCHEDULES, monkeypatch)
    assert (tally.duplicates, tally.lost, tally.left) == ([], [], [])
    # They are worth something: all ends occur, and so does what this is about.
    assert all(
        tally.ends[kind] > SCHEDULES / 20 for kind in ("done", "busy", "failed", "cancelled")
    )
    for count, was in zip(counts, before, strict=True):
        assert count.value - was > SCHEDULES / 100


def test_the_schedules_find_a_race_with_two_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler.pool.attempts.Race.claim", lambda self, attempt: True)
    tally = run_all(250, monkeypatch)
    assert tally.duplicates


@pytest.mark.slow
def test_the_schedules_find_a_commit_that_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A placer that does not learn of a commit gives the call up when its time is over, and tries
    it elsewhere."""
    monkeypatch.setattr(Attempt, "committed", lambda self: None)
    tally = run_all(250, monkeypatch)
    assert tally.duplicates
