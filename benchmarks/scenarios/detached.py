"""Detached calls: until the client has its 202."""

from __future__ import annotations

import functools

from .._measure import Metrics, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target

BODY = 1024
CLIENTS = (1, 8)


def _measure(target: Target, settings: Settings, *, clients: int) -> Metrics:
    plan = LoadPlan(
        address=target.address,
        path=target.paths["echo"],
        connections=clients,
        body_size=BODY,
        headers={"Fn-Invoke-Type": "detached"},
        status=202,
        answer_size=0,
        warm_up=settings.warm_up,
        seconds=settings.seconds,
    )
    return measure_load(target, plan)


SCENARIOS = tuple(
    Scenario(
        name=f"detached-{clients}",
        about=f"1 KiB to a function, detached: {clients} client(s) until their 202",
        measure=functools.partial(_measure, clients=clients),
        functions={"echo": {"memory": 32, "idle_timeout": 300}},
    )
    for clients in CLIENTS
)
