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
from typing import Any

from .._counters import launches, until_containers
from .._measure import Metrics, RunFailed
from .._plan import Answered, Ask, Crowd, CrowdPlan, CrowdResult
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


def singles(
    nodes: Target, name: str, headers: dict[str, str], count: int = SINGLES, body: bytes = b""
) -> None:
    """Calls one after the other. Raises `RunFailed` at an answer that is none."""
    for _ in range(count):
        answer = post(nodes.address, nodes.paths[name], body, headers)
        if answer.status != 200:
            raise RunFailed(f"status {answer.status}: {answer.body[:200]!r}")


def rate_between(answered: Sequence[Answered], begin: float, end: float) -> float:
    """Calls per second that were served then."""
    served = sum(one.status == 200 and begin <= one.ended < end for one in answered)
    return served / (end - begin)


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
)
