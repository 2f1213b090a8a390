"""From few clients to many: how soon, and how nearly, a function gets the containers it can use.

A function that a few calls, one after the other, have called before is not new to the nodes: they
know how long its calls take, and have a container for it. The figures stand beside the ideal of the
same run, which is the same clients at a second function of the same nodes that has a container
for each of them from the beginning (``hostler/min-warm``).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .._answers import BadAnswer
from .._counters import Moment, launches, until_containers, watched
from .._measure import Metrics, RunFailed, measure_load
from .._plan import Answered, Ask, Crowd, CrowdPlan, CrowdResult, LoadPlan
from .._plot import Series
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler
from ..crowd import run_crowd
from ..load import post

SINGLES = 5
MEMORY = 32
HOT: Mapping[str, Any] = {"memory": MEMORY, "idle_timeout": 300}
ENV = {"FN_HTTP_BIND": "127.0.0.1:0"}
ROOMY = {**ENV, "FN_MAX_TOTAL_MEMORY_BYTES": str(160 * MEMORY * 2**20)}
"""Settings of a runner with room for more containers than any of these uses."""
AFTER_SINGLES = ((30, 4), (10, 8), (100, 16), (300, 4))
"""Milliseconds of a call, and clients."""
SETTLED, MEASURED = 5.0, 8.0
"""Seconds until the rate counts, and for which it does."""

STEPS = (1, 8, 1, 16)
STEP = 10.0
"""Seconds of each number of clients."""
AFTERWARDS = 60.0
"""Seconds with one client, after the last step."""
STEP_RUN, STEP_START = 50, 500
"""Milliseconds of a call, and of a container's start."""
IDLE_TIMEOUT = 30
WINDOW, REACHED = 0.5, 0.9
"""A step is reached when the rate of a window of so many seconds is that share of the ideal."""
LOOK = 0.25
"""Seconds between two looks at the containers."""

ECHO_CLIENTS = (8, 32, 128)
ECHO_BODY = 1024
ECHO_SETTLED, ECHO_MEASURED = 3.0, 5.0
ECHO_LONG = 57.0
"""Seconds that are measured with the most clients, to see how many containers there are at last."""


def _growth_after_singles(target: Target, settings: Settings, *, run: int, clients: int) -> Metrics:
    settled, seconds = (settings.scaled(x) for x in (SETTLED, SETTLED + MEASURED))
    at_ideal = max(settings.scaled(MEASURED), 5 * run / 1e3)
    functions: dict[str, Mapping[str, Any]] = {
        "grows": HOT,
        "ideal": {**HOT, "annotations": {"hostler/min-warm": clients}},
    }
    headers = {"Fnt-Do": f"sleep={run}"}

    def loop(nodes: Target, name: str, seconds: float) -> CrowdResult:
        ask = Ask(path=nodes.paths[name], headers=headers)
        crowd = Crowd(asks=[ask], clients=[(0.0, clients)])
        return run_crowd(CrowdPlan(address=nodes.address, crowds=[crowd], seconds=seconds))

    with open_hostler(functions, settings.driver, ROOMY) as nodes:
        time.sleep(settings.warm_up)
        singles(nodes, "grows", headers)
        before = launches(nodes)
        grown = loop(nodes, "grows", seconds)
        started = launches(nodes) - before
        singles(nodes, "ideal", headers, count=1)
        until_containers(nodes, "ideal", clients)
        ideal = loop(nodes, "ideal", at_ideal)
    rate = rate_between(grown.answered, settled, seconds)
    best = rate_between(ideal.answered, 0.0, at_ideal)
    return {
        "share_of_ideal": rate / best,
        "calls_per_s": rate,
        "calls_per_s/ideal": best,
        "calls_per_s/clients_over_run": clients * 1e3 / run,
        **by_second(grown.answered, seconds),
        "containers_started": started,
        "containers_started/ideal": clients - 1,  # one is there
        **health_of(grown, seconds),
    }


def _steps(target: Target, settings: Settings) -> Metrics:
    step, run = settings.scaled(STEP), {"Fnt-Do": f"sleep={STEP_RUN}"}
    most = max(STEPS)
    slow: Mapping[str, Any] = {
        "memory": MEMORY,
        "idle_timeout": IDLE_TIMEOUT,
        "config": {"FNT_START": f"delay={STEP_START}"},
    }
    functions = {
        "work": slow,
        "ideal": {**slow, "annotations": {"hostler/min-warm": most}},
    }
    begins = [number * step for number in range(len(STEPS) + 1)]
    plan = list(zip(begins, (*STEPS, 1), strict=True))
    seconds = begins[-1] + settings.scaled(AFTERWARDS)

    def loop(name: str, clients: list[tuple[float, int]], seconds: float) -> CrowdResult:
        crowd = Crowd(asks=[Ask(path=nodes.paths[name], headers=run)], clients=clients)
        return run_crowd(CrowdPlan(address=nodes.address, crowds=[crowd], seconds=seconds))

    with open_hostler(functions, settings.driver, ROOMY) as nodes:
        time.sleep(settings.warm_up)
        with watched(nodes, LOOK) as moments:
            result = loop("work", plan, seconds)
        started = launches(nodes)
        singles(nodes, "ideal", run, count=1)
        until_containers(nodes, "ideal", most)
        best = {}
        for clients in sorted(set(STEPS)):
            length = settings.scaled(3.0)
            best[clients] = rate_between(
                loop("ideal", [(0.0, clients)], length).answered, length / 6, length
            )

    metrics: Metrics = {}
    for number, (begin, clients) in enumerate(plan[:-1]):
        name = f"step-{number + 1}-to-{clients}"
        ideal = best[clients]
        metrics[f"reached_after_s/{name}"] = _reached(result.answered, begin, step, ideal)
        metrics[f"calls_per_s/{name}"] = rate_between(result.answered, begin, begin + step)
        metrics[f"calls_per_s/{name}/ideal"] = ideal
    series = _series_of(result, moments, plan)
    settings.keep_series("steps", series)
    held = sum(a["containers"] * (b["seconds"] - a["seconds"]) for a, b in pairwise(series))
    metrics |= {
        "containers_started": started,
        "containers_started/ideal": most,
        "containers_most": max((row["containers"] for row in series), default=0.0),
        "containers_at_end": series[-1]["containers"] if series else 0.0,
        "containers_at_end/ideal": 1,
        "container_seconds": held,
        "container_seconds/ideal": sum(STEPS) * step + seconds - begins[-1],
        **health_of(result, seconds),
    }
    return metrics


def _reached(answered: Sequence[Answered], begin: float, length: float, ideal: float) -> float:
    """Seconds after ``begin`` at which the first window with nearly the ideal rate begins; all of
    ``length`` if there is none."""
    after = 0.0
    while after + WINDOW <= length:
        if rate_between(answered, begin + after, begin + after + WINDOW) >= REACHED * ideal:
            return after
        after += 0.05
    return length


def _series_of(
    result: CrowdResult, moments: Sequence[Moment], plan: Sequence[tuple[float, int]]
) -> Series:
    """What there was at each look: calls that wait are those under way that no container runs."""
    series = []
    for moment in moments:
        at = moment.at - result.started_at
        under_way = sum(one.began <= at < one.ended for one in result.answered)
        series.append(
            {
                "seconds": at,
                "clients": float(([0] + [clients for begin, clients in plan if begin <= at])[-1]),
                "containers": moment.ready,
                "busy": moment.busy,
                "waiting": max(0.0, under_way - moment.busy),
                "started": moment.launched,
                "calls_per_s": rate_between(result.answered, at - WINDOW, at),
            }
        )
    return series


def _echo_after_singles(target: Target, settings: Settings, *, clients: int) -> Metrics:
    """The same clients at new nodes that had single calls before, and at new nodes without."""
    seconds = ECHO_LONG if clients == max(ECHO_CLIENTS) else ECHO_MEASURED
    found: dict[str, Metrics] = {}
    started: dict[str, float] = {}
    for name in ("after_singles", "clients_first"):
        with open_hostler({"echo": HOT}, settings.driver, ENV) as nodes:
            time.sleep(settings.warm_up)
            if name == "after_singles":
                singles(nodes, "echo", {}, body=bytes(ECHO_BODY))
            plan = LoadPlan(
                address=nodes.address,
                path=nodes.paths["echo"],
                connections=clients,
                body_size=ECHO_BODY,
                warm_up=settings.scaled(ECHO_SETTLED),
                seconds=settings.scaled(seconds),
            )
            found[name] = measure_load(nodes, plan)
            started[name] = launches(nodes)
    one, other = found["after_singles"], found["clients_first"]
    return {
        "share_of_ideal": one["requests_per_s"] / other["requests_per_s"],
        **{
            f"{metric}/{name}": metrics[metric]
            for metric in ("requests_per_s", "latency_p50_us", "latency_p99_us")
            for name, metrics in found.items()
        },
        **{f"containers_started/{name}": count for name, count in started.items()},
        "cpus_of_others": max(one["cpus_of_others"], other["cpus_of_others"]),
    }


def singles(
    nodes: Target, name: str, headers: dict[str, str], count: int = SINGLES, body: bytes = b""
) -> None:
    """Calls one after the other. Raises `RunFailed` at an answer that is none."""
    for _ in range(count):
        try:
            answer = post(nodes.address, nodes.paths[name], body, headers)
        except (BadAnswer, OSError) as error:
            raise RunFailed(f"a single call had no answer: {error}") from error
        if answer.status != 200:
            raise RunFailed(f"status {answer.status}: {answer.body[:200]!r}")


def rate_between(answered: Sequence[Answered], begin: float, end: float) -> float:
    """Calls per second that were served then."""
    served = sum(one.status == 200 and begin <= one.ended < end for one in answered)
    return served / (end - begin)


def percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def by_second(answered: Sequence[Answered], seconds: float) -> Metrics:
    """Calls served in each second from the begin on, as far as it is whole."""
    return {
        f"calls_in_second/{second + 1:02}": rate_between(answered, second, second + 1)
        for second in range(int(seconds + 0.01))
    }


def health_of(result: CrowdResult, seconds: float) -> Metrics:
    """Whether the other figures are to be trusted: calls that had another answer than 200 (a
    client that left is none), and what the generator was busy and late."""
    metrics: Metrics = {
        "failed": sum(one.status not in (0, 200) for one in result.answered),
        "cpus_of_generator": result.cpu_s / seconds,
        "generator_late_p99_ms": result.late_p99_s * 1e3,
    }
    if any(one.status < 0 for one in result.answered):
        raise RunFailed(f"calls without an answer: {result.first_error}")
    return metrics


SCENARIOS = (
    *(
        Scenario(
            name=f"growth-after-singles-{run}ms-{clients}",
            about=f"five single calls, then {clients} clients in a loop at once, {run} ms per call",
            measure=functools.partial(_growth_after_singles, run=run, clients=clients),
            target="none",
        )
        for run, clients in AFTER_SINGLES
    ),
    Scenario(
        name="steps",
        about="1, 8, 1 and 16 clients in a loop for 10 s each, 50 ms per call, starts of 0.5 s",
        measure=_steps,
        target="none",
        only_by_name=True,
    ),
    *(
        Scenario(
            name=f"echo-after-singles-{clients}",
            about=f"1 KiB echo, {clients} client(s): after five single calls, and from the begin",
            measure=functools.partial(_echo_after_singles, clients=clients),
            target="none",
            only_by_name=clients == max(ECHO_CLIENTS),
        )
        for clients in ECHO_CLIENTS
    ),
)
