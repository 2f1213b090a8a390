"""1 KiB to a hot function and back: what a call costs when nothing has to be started."""

from __future__ import annotations

import functools

from .._measure import Metrics, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target

BODY = 1024
CLIENTS = (1, 8, 32, 128)


def _measure(target: Target, settings: Settings, *, clients: int) -> Metrics:
    plan = LoadPlan(
        address=target.address,
        path=target.paths["echo"],
        connections=clients,
        body_size=BODY,
        any_answer=target.any_answer,
        warm_up=settings.warm_up,
        seconds=settings.seconds,
    )
    return measure_load(target, plan)


SCENARIOS = (
    *(
        Scenario(
            name=f"hot-echo-{clients}",
            about=f"1 KiB echo, {clients} keep-alive client(s), through LB and runner",
            measure=functools.partial(_measure, clients=clients),
            functions={"echo": {"memory": 32, "idle_timeout": 300}},
        )
        for clients in CLIENTS
    ),
    *(
        Scenario(
            name=f"ceiling-{clients}",
            about=f"the same from {clients} client(s) to the bare function: the generator's limit",
            measure=functools.partial(_measure, clients=clients),
            target="function",
        )
        for clients in CLIENTS
    ),
)
