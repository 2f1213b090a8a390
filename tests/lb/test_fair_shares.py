"""Several load balancers at one full runner: each has its share at once, whoever came first."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from .balancers import Contest, open_contest

SECONDS = 0.1
"""That a call runs."""
CLIENTS = 16
ALONE = 3.0
"""Seconds that the first has the runner for itself."""
SETTLED = 2.0
"""Seconds that the others have to get their share, of which the bounds hold from then on."""
WINDOW, END = 5.0, 15.0


def check_shares(
    contest: Contest, since: float, tolerance: float, *, settled: float = SETTLED
) -> None:
    """In each window since then, no load balancer has more or less than that of an even share."""
    even = 1 / len(contest.balancers)
    for step in range(int(4 * (END - settled - WINDOW)) + 1):
        begin = since + settled + step / 4
        shares = contest.shares(begin, begin + WINDOW)
        assert min(shares) >= even * (1 - tolerance), shares
        assert max(shares) <= even * (1 + tolerance), shares


@pytest.mark.parametrize(("balancers", "containers"), [(2, 4), (2, 2), (2, 1), (3, 4), (4, 1)])
async def test_each_has_its_share_and_no_container_idles(
    autojump_clock: MockClock, tmp_path: Path, balancers: int, containers: int
) -> None:
    async with open_contest(tmp_path, containers=containers, seconds=SECONDS) as contest:
        contest.enter("fn", CLIENTS)
        await trio.sleep(ALONE)
        since = trio.current_time()
        for _ in range(balancers - 1):
            contest.enter("fn", CLIENTS)
        await trio.sleep(END)
        check_shares(contest, since, 0.2)
        assert contest.rate(since + SETTLED, since + END) > 0.97 * containers / SECONDS
        for balancer in contest.balancers[1:]:
            assert balancer.ended[0] - since < 1.0
        in_turn = balancers * CLIENTS * SECONDS / containers
        assert max(balancer.longest for balancer in contest.balancers) < 1.3 * in_turn + 0.5
        attempts = sorted(number for one in contest.balancers for number in one.attempts)
        assert attempts[int(0.99 * len(attempts))] <= 3


@pytest.mark.parametrize(
    ("functions", "containers", "seconds"),
    [
        ("ab", 1, 0.1),
        ("ab", 4, 0.1),
        ("abc", 4, 0.1),
        ("ab", 3, 0.4),
        ("abab", 4, 0.4),
        ("ab", 1, 2.0),
        ("ab", 2, 2.0),
        ("ab", 4, 2.0),
        ("aa", 1, 2.0),
        ("aa", 4, 2.0),
    ],
)
async def test_each_has_its_share_where_functions_differ_or_run_for_long(
    autojump_clock: MockClock, tmp_path: Path, functions: str, containers: int, seconds: float
) -> None:
    async with open_contest(tmp_path, containers=containers, seconds=seconds) as contest:
        contest.enter(functions[0], CLIENTS)
        await trio.sleep(ALONE)
        since = trio.current_time()
        for fn_id in functions[1:]:
            contest.enter(fn_id, CLIENTS)
        await trio.sleep(END)
        # (With one container and calls of 2 s, a window has two or three calls.)
        check_shares(contest, since, 0.4, settled=4.0)
        # For one container it takes a start each second.
        busy = contest.rate(since + SETTLED, since + END) * seconds / containers
        assert busy > (0.92 if containers > 1 else 0.8)
        for balancer in contest.balancers[1:]:
            assert balancer.ended[0] - since < 2.0 + 2 * seconds


@pytest.mark.parametrize("start", [1.0, 3.0])
async def test_a_container_that_starts_slowly_runs_longer_than_it_starts(
    autojump_clock: MockClock, tmp_path: Path, start: float
) -> None:
    async with open_contest(
        tmp_path, containers=1, seconds=SECONDS, start_seconds=start
    ) as contest:
        contest.enter("a", CLIENTS)
        await trio.sleep(start + ALONE)
        since = trio.current_time()
        contest.enter("b", CLIENTS)
        turn = 6 * start  # with its start, and until the other hears
        await trio.sleep(6 * turn)
        assert contest.rate(since, since + 6 * turn) * SECONDS > 0.6
        for balancer in contest.balancers:
            assert balancer.longest < 3 * turn


@pytest.mark.parametrize("seed", [0, 3, 19, 21])
async def test_who_wants_little_is_served_soon_and_the_rest_is_for_the_others(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A call of theirs costs the runner 0.09 to 0.16 s of a container beside its own time, since
    their share is kept for a moment. These orders of tasks are the extremes of two dozen."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio._core._run._r.seed(seed)
    async with open_contest(tmp_path, containers=4, seconds=SECONDS) as contest:
        contest.enter("fn", CLIENTS)
        await trio.sleep(ALONE)
        since = trio.current_time()
        for _ in range(3):
            contest.enter("fn", 1, pause=1.0)
        await trio.sleep(END)
        first, *others = contest.balancers
        for balancer in others:
            assert balancer.count(since, since + END) >= 10
            assert balancer.longest < 1.7  # three pauses between probes, and its turn
        assert contest.rate(since + SETTLED, since + END) > 0.93 * 4 / SECONDS
        assert first.count(since, since + END) > 0.87 * END * 4 / SECONDS


@pytest.mark.parametrize("other", ["fn", "other"])
async def test_what_one_has_left_is_the_others_at_once(
    autojump_clock: MockClock, tmp_path: Path, other: str
) -> None:
    async with open_contest(tmp_path, containers=4, seconds=SECONDS) as contest:
        contest.enter("fn", CLIENTS)
        async with trio.open_nursery() as nursery:
            contest.nursery = nursery
            contest.enter(other, CLIENTS)
            await trio.sleep(ALONE)
            nursery.cancel_scope.cancel()
        since = trio.current_time()
        await trio.sleep(4)
        assert contest.balancers[0].count(since + 1, since + 4) > 0.97 * 3 * 4 / SECONDS
