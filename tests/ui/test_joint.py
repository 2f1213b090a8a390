"""One page of what several processes know."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from hostler.ui import Activity, Panel
from hostler.ui.aggregate import ProcessState, StateCursor, state_of
from hostler.ui.documents import NodeLoad, RunnerRow

from .panels import Clock, call, note, panel


def share(process: int, activity: Activity | None = None, **fields: object) -> ProcessState:
    seconds = activity.seconds_since(0, 12) if activity else None
    told = ProcessState(
        process=process,
        node="lb",
        ready=True,
        trouble="",
        started=float(process),
        calls=activity.calls if activity else 0,
        failed=activity.failed if activity else 0,
        load=NodeLoad(queued=1, running=2),
        seconds=seconds,
        recent=activity.recent_since(0) if activity else None,
        functions=[],
        functions_total=0,
        listing="none",
        runners=None,
    )
    return msgspec.structs.replace(told, **fields)


def activity_of(durations_ms: list[int], at: float, ids: str) -> Activity:
    activity = Activity()
    with pytest.MonkeyPatch.context() as patch:
        for number, duration in enumerate(durations_ms):
            patch.setattr("hostler.ui.activity.time", Clock(at, duration * 1_000_000))
            ended = call()
            ended.model.id = f"{ids}{number}"
            note(activity, ended)
    return activity


def test_latencies_are_those_of_all_calls_and_not_a_mean_of_quantiles() -> None:
    one, other = activity_of([1] * 99, 10, "a"), activity_of([1000], 10, "b")
    alone, _ = state_of([share(1, one)], StateCursor(), 12)
    state, _ = state_of([share(1, one), share(2, other)], StateCursor(), 12)
    assert alone.seconds is not None
    assert state.seconds is not None
    (both,) = state.seconds
    assert (both.at, both.calls, state.calls) == (10, 100, 100)
    assert both.p50 == pytest.approx(1, rel=0.05)
    assert both.p99 == alone.seconds[0].p99
    more, _ = state_of(
        [share(1, one), share(2, activity_of([1000] * 2, 10, "b"))], StateCursor(), 12
    )
    assert more.seconds is not None
    assert more.seconds[0].p99 == pytest.approx(1000, rel=0.05)


def test_seconds_and_calls_are_in_their_order() -> None:
    early, late = activity_of([1], 10, "a"), activity_of([1], 11, "b")
    state, cursor = state_of([share(1, late), share(2, early)], StateCursor(), 12)
    assert [second.at for second in state.seconds or ()] == [10, 11]
    assert [row.id for row in state.recent or ()] == ["a0", "b0"]
    assert (cursor.second, cursor.seen) == (11, {1: 1, 2: 1})
    assert state.started == 1


def test_a_runner_is_as_bad_as_the_worst_that_is_known_of_it() -> None:
    row = RunnerRow(
        address="r",
        state="in use",
        cause="",
        share=1,
        calls=3,
        active=1,
        free_memory=1,
        reclaimable_memory=0,
        idle_containers=0,
    )
    ejected = msgspec.structs.replace(row, state="ejected", cause="it is gone", calls=4)
    shares = [share(1, runners=[row]), share(2, runners=[ejected])]
    state, _ = state_of(shares, StateCursor(), 0)
    assert state.runners == [msgspec.structs.replace(ejected, calls=7)]
    assert state.load == NodeLoad(queued=2, running=4)
    assert (state.seconds, state.recent) == (None, None)


async def test_each_process_tells_what_is_new_to_the_reader() -> None:
    own, other = Activity(), Activity()
    mine, theirs = panel(own), panel(other)

    async def ask(question: bytes) -> Mapping[int, bytes]:
        return {1: await theirs.answer(question)}

    def end(activity: Activity, call_id: str) -> None:
        ended = call()
        ended.model.id = call_id
        note(activity, ended)

    mine.ask_others = ask
    end(own, "a")
    end(other, "b")
    # (Both are in one process here, which the cursor takes for one.)
    state, cursor = await mine.state(StateCursor())
    assert {row.id for row in state.recent or ()} == {"a", "b"}
    end(other, "c")
    state, _ = await mine.state(cursor)
    assert [row.id for row in state.recent or ()] == ["c"]
    assert (state.calls, state.functions[0].calls) == (3, 3)


async def test_a_process_that_was_started_again_has_all_new() -> None:
    activity = Activity()
    shown: Panel = panel(activity)
    _, cursor = await shown.state(StateCursor())
    ahead = msgspec.structs.replace(cursor, seen=dict.fromkeys(cursor.seen, 50))
    note(activity, call())
    state, after = await shown.state(ahead)
    assert state.recent == []
    assert set(after.seen.values()) == {1}
