"""What freezing costs: the same load with and without it, and a call now and then."""

from __future__ import annotations

import functools
import statistics
import time

from .._answers import Answer
from .._measure import Metrics, RunFailed, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target
from ..load import dial, request_of

BODY = 1024
CLIENTS = (8, 32, 128)
PERIOD = 0.3
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


def _load(target: Target, settings: Settings, *, clients: int) -> Metrics:
    return measure_load(target, _plan(target, settings, clients))


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
            name=f"freeze-{name}-{clients}",
            about=f"1 KiB echo, {clients} clients, idle containers are {text}",
            measure=functools.partial(_load, clients=clients),
            functions=FUNCTIONS,
            env=env,
        )
        for clients in CLIENTS
        for name, text, env in (
            ("default", "frozen by the policy", {}),
            ("never", "never frozen", NEVER),
        )
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
