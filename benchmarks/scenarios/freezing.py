"""What freezing costs: the same load with and without it, and a call now and then.

The load goes to two LBs with a runner each, one that freezes by the policy and one that never
does, in turn and within one run: a busy neighbour hits both, and the ratio of two measurements that
follow each other says more than either of them.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack

import attrs

from .._answers import Answer
from .._measure import Metrics, RunFailed, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler
from ..load import dial, request_of

BODY = 1024
CLIENTS = (8, 32, 128)
PERIOD = 0.3
PAIRS = 8
RATE = "requests_per_s"
NEVER = {"FN_FREEZE_IDLE_MSECS": "-1"}


def _plan(target: Target, settings: Settings, clients: int) -> LoadPlan:
    return LoadPlan(
        address=target.address,
        path=target.paths["echo"],
        connections=clients,
        body_size=BODY,
        warm_up=settings.warm_up,
        seconds=settings.seconds,
    )


def _pair(target: Target, settings: Settings, *, clients: int) -> Metrics:
    """`PAIRS` times both, each for a quarter of the settings' seconds, in changing order."""
    short = attrs.evolve(settings, seconds=settings.seconds / 4, warm_up=settings.warm_up / 4)
    found: dict[str, list[Metrics]] = {"default": [], "never": []}
    with ExitStack() as stack:
        targets = {
            name: stack.enter_context(open_hostler(FUNCTIONS, settings.driver, env))
            for name, env in (("default", {}), ("never", NEVER))
        }
        for number in range(PAIRS):
            for name in sorted(targets, reverse=number % 2 == 1):
                one = targets[name]
                found[name].append(measure_load(one, _plan(one, short, clients)))
    return compare_pairs(found["default"], found["never"])


def compare_pairs(default: Sequence[Metrics], never: Sequence[Metrics]) -> Metrics:
    """Medians of both sides, and of the ratios of the pairs with their range."""
    rates = [a[RATE] / b[RATE] for a, b in zip(default, never, strict=True)]
    costs = [_cost(a) / _cost(b) for a, b in zip(default, never, strict=True)]
    metrics = {
        f"{metric}/{name}": statistics.median(run[metric] for run in runs)
        for metric in (RATE, "latency_p50_us", "latency_p99_us")
        for name, runs in (("default", default), ("never", never))
    }
    metrics["default_over_never"] = statistics.median(rates)
    metrics["default_over_never_least"] = min(rates)
    metrics["default_over_never_most"] = max(rates)
    metrics["cpu_default_over_never"] = statistics.median(costs)
    metrics["cpus_of_others"] = max(run["cpus_of_others"] for run in (*default, *never))
    return metrics


def _cost(run: Metrics) -> float:
    return sum(run[f"cpu_us_per_request/{name}"] for name in ("lb", "runner"))


def _now_and_then(target: Target, settings: Settings) -> Metrics:
    """One client, one call every `PERIOD` seconds; the first ones are the warm-up."""
    plan = _plan(target, settings, 1)
    body = bytes(plan.body_size)
    request = request_of(plan, body)
    skipped, count = (max(2, round(x / PERIOD)) for x in (settings.warm_up, settings.seconds))
    took = []
    with dial(plan.address) as connection:
        for _ in range(skipped + count):
            time.sleep(PERIOD)
            answer = Answer()
            begin = time.perf_counter()
            connection.sendall(request)
            while not answer.feed(data := connection.recv(1 << 18)):
                if not data:
                    raise RunFailed("the connection ended unanswered")
            took.append((time.perf_counter() - begin) * 1e6)
            if answer.status != 200 or answer.body != body:
                raise RunFailed(f"status {answer.status}: {answer.body[:200]!r}")
    measured = took[skipped:]
    return {"latency_p50_us": statistics.median(measured), "latency_max_us": max(measured)}


FUNCTIONS = {"echo": {"memory": 32, "idle_timeout": 300}}

SCENARIOS = (
    *(
        Scenario(
            name=f"freeze-{clients}",
            about=f"1 KiB echo, {clients} clients: frozen by the policy, and never, in turn",
            measure=functools.partial(_pair, clients=clients),
            target="none",
        )
        for clients in CLIENTS
    ),
    *(
        Scenario(
            name=f"now-and-then-{name}",
            about=f"one call every 300 ms, idle containers are {text}",
            measure=_now_and_then,
            functions=FUNCTIONS,
            env=env,
        )
        for name, text, env in (
            ("default", "frozen by the policy", {}),
            ("never", "never frozen", NEVER),
            ("at-once", "frozen at once", {"FN_FREEZE_IDLE_MSECS": "0"}),
        )
    ),
)
