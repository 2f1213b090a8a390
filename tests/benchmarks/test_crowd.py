"""Clients that come, pause and leave by a plan, at real processes; and what is made of it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks._counters import (
    containers,
    function_id,
    launches,
    read_samples,
    until_containers,
    watched,
)
from benchmarks._measure import RunFailed
from benchmarks._plan import BROKEN, LEFT, Answered, Ask, Crowd, CrowdPlan, CrowdResult
from benchmarks._scenario import Settings, all_scenarios
from benchmarks._target import Target, open_hostler, pinned
from benchmarks.crowd import run_crowd
from benchmarks.load import post
from benchmarks.scenarios.growth import by_second, rate_between
from benchmarks.scenarios.sharing import fewest_starts

FUNCTIONS: dict[str, dict[str, Any]] = {
    "echo": {"memory": 32},
    "warm": {"memory": 32, "annotations": {"hostler/min-warm": 3}},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Target]:
    with open_hostler(FUNCTIONS, "process", {"FN_HTTP_BIND": "127.0.0.1:0"}) as target:
        assert post(target.address, target.paths["echo"], b"x").status == 200
        yield target


def ask(nodes: Target, do: str = "", path: str = "") -> Ask:
    return Ask(path=path or nodes.paths["echo"], headers={"Fnt-Do": do})


def crowd(nodes: Target, crowds: list[Crowd], seconds: float = 0.4) -> CrowdResult:
    return run_crowd(CrowdPlan(address=nodes.address, crowds=crowds, seconds=seconds, limit=20.0))


def test_clients_in_a_loop_come_and_go(nodes: Target) -> None:
    """Two from the begin, none later, one at the end: none of them calls but when it is there."""
    plan = [(0.0, 2), (0.2, 0), (0.8, 1)]
    result = crowd(nodes, [Crowd(asks=[ask(nodes)], clients=plan)], seconds=2.0)
    assert {one.status for one in result.answered} == {200}
    assert result.started_at > 0
    assert result.cpu_s > 0
    began = [one.began for one in result.answered]
    late = result.late_max_s
    assert all(at <= 0.2 + late or 0.8 <= at <= 2.0 + late for at in began)
    assert any(at < 0.2 for at in began)
    assert any(at >= 0.8 for at in began)


def test_clients_pause(nodes: Target) -> None:
    """Nobody calls again before the pause is over."""
    result = crowd(nodes, [Crowd(asks=[ask(nodes)], clients=[(0.0, 1)], pause=0.1)], seconds=1.0)
    assert 2 <= len(result.answered) <= 10
    for one, other in zip(result.answered, result.answered[1:], strict=False):
        assert other.began - one.ended >= 0.1


def test_clients_that_lose_patience_leave(nodes: Target) -> None:
    """Who comes once and leaves has no answer; who waits long enough has one."""
    slow = Crowd(asks=[ask(nodes, "sleep=300")], arrivals=[0.0, 0.01], patience=[0.1, 20.0])
    result = crowd(nodes, [slow], seconds=0.1)
    left, served = sorted(result.answered, key=lambda one: one.status)
    assert (left.status, served.status) == (LEFT, 200)
    assert 0.1 <= left.took <= 0.1 + result.late_max_s + 0.01
    assert served.took >= 0.3


def test_patience_is_over_with_the_answer(nodes: Target) -> None:
    """The run does not last for as long as somebody would have waited who was served."""
    quick = Crowd(asks=[ask(nodes)], arrivals=[0.0], patience=[1e4])
    assert [one.status for one in crowd(nodes, [quick], seconds=0.1).answered] == [200]


def test_calls_are_chosen_by_weight(nodes: Target) -> None:
    asks = [ask(nodes, "status=200"), ask(nodes, path="/invoke/none"), ask(nodes)]
    one = Crowd(asks=asks, weights=[1.0, 0.0, 1.0], clients=[(0.0, 2)])
    result = crowd(nodes, [one])
    assert {one.ask for one in result.answered} == {0, 2}
    assert {one.status for one in result.answered} == {200}


def test_other_answers_and_none_are_told(nodes: Target) -> None:
    """A client in a loop that is refused comes again, after a moment."""
    nowhere = Crowd(asks=[ask(nodes, path="/invoke/none")], clients=[(0.0, 1)])
    result = crowd(nodes, [nowhere], seconds=1.0)
    assert {one.status for one in result.answered} == {404}
    assert 2 <= len(result.answered) <= 11
    nobody = CrowdPlan(
        address="127.0.0.1:1",
        crowds=[Crowd(asks=[ask(nodes)], arrivals=[0.0])],
        seconds=0.1,
    )
    broken = run_crowd(nobody)
    assert [one.status for one in broken.answered] == [BROKEN]
    assert "could not connect" in broken.first_error


def test_containers_are_counted(nodes: Target) -> None:
    (runner,) = nodes.runners
    before = launches(nodes)
    with watched(nodes, 0.01) as moments:
        assert post(nodes.address, nodes.paths["warm"], b"x").status == 200
        until_containers(nodes, "warm", 3)
        while not moments:
            pass
    assert launches(nodes) == before + 3
    assert moments[-1].launched >= before
    samples = read_samples(runner)
    assert containers(samples, function_id(nodes, "warm")) == 3
    assert containers(samples) >= 4
    with pytest.raises(RunFailed, match="3 containers, not 4"):
        until_containers(nodes, "warm", 4, limit=0.0)


def test_rates_count_what_was_served() -> None:
    def one(ended: float, status: int = 200) -> Answered:
        return Answered(0, 0, ended - 0.1, 0.1, status, False)

    answered = [one(0.5), one(0.9), one(1.5), one(1.6, status=503), one(2.5)]
    assert rate_between(answered, 0.0, 2.0) == 1.5
    assert by_second(answered, 2.2) == {"calls_in_second/01": 2, "calls_in_second/02": 1}


def test_the_fewest_starts_know_the_future() -> None:
    """Two places, functions 0 1 2 0 1 0: 0 stays, and only the first call of 2 and the second one
    of 1 are cold, beside those that were there."""

    def load(*functions: int) -> CrowdResult:
        answered = [
            Answered(0, function, float(number), 0.1, 200, False)
            for number, function in enumerate(functions)
        ]
        return CrowdResult(
            started_at=0.0,
            answered=answered[::-1],
            cpu_s=0.0,
            late_p99_s=0.0,
            late_max_s=0.0,
        )

    assert fewest_starts(load(0, 1), load(2, 0, 1, 0), places=2) == 2
    assert fewest_starts(load(), load(0, 1, 0), places=2) == 2


def test_what_is_started_meanwhile_is_pinned() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    code = "import os; print(os.sched_getaffinity(0))"
    with pinned(core):
        told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.strip() == f"{ {core} }"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("name", "part", "metric"),
    [
        ("growth-after-singles-10ms-8", 0.05, "share_of_ideal"),
        ("steps", 0.05, "containers_started"),
        ("overload-untold-serve-30s", 0.1, "share_of_ideal"),
        ("neighbours-tight", 0.05, "p99_over_alone"),
        ("zipf-50-mixed-24", 0.05, "started_per_s"),
    ],
)
def test_scenarios_run(name: str, part: float, metric: str, tmp_path: Path) -> None:
    """With a part of their times they say something else, but they say it."""
    settings = Settings(warm_up=0.0, seconds=5.0 * part, series=tmp_path)
    nothing = Target(address="", paths={}, processes=dict)
    assert all_scenarios()[name].measure(nothing, settings)[metric] > 0
    if name == "steps":
        rows = list(csv.DictReader((tmp_path / "steps-1.csv").read_text().splitlines()))
        assert max(float(row["containers"]) for row in rows) >= 1
        assert (tmp_path / "steps-1.svg").exists()
