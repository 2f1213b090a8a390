"""To a hot function and back: what a call costs when nothing has to be started."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from .._measure import Metrics, measure_load
from .._plan import LoadPlan
from .._scenario import Scenario, Settings
from .._target import Target

BODY = 1024
CLIENTS = (1, 8, 32, 128)
SIZES = {"0": 0, "64k": 2**16, "1m": 2**20, "10m": 10 * 2**20}
"""Other bodies, by their names. From 1 MiB on 4 clients keep all cores busy."""
WORKERS = 2
HOT = {"memory": 32, "idle_timeout": 300}


def _measure(target: Target, settings: Settings, *, clients: int, size: int = BODY) -> Metrics:
    plan = LoadPlan(
        address=target.address,
        path=target.paths["echo"],
        connections=clients,
        body_size=size,
        any_answer=target.any_answer,
        warm_up=settings.warm_up,
        seconds=settings.seconds,
    )
    metrics = measure_load(target, plan)
    if size >= 2**20:
        metrics["megabytes_per_s"] = metrics["requests_per_s"] * size / 1e6
    return metrics


def _sized(name: str, size: int) -> Iterator[Scenario]:
    for clients in (1, 4) if size >= 2**20 else CLIENTS:
        yield Scenario(
            name=f"hot-echo-{clients}-{name}",
            about=f"the same with {name} of body, {clients} client(s)",
            measure=functools.partial(_measure, clients=clients, size=size),
            functions={"echo": HOT},
            env={"FN_MAX_REQUEST_SIZE": "0"},
        )


SCENARIOS = (
    *(
        Scenario(
            name=f"hot-echo-{clients}",
            about=f"1 KiB echo, {clients} keep-alive client(s), through LB and runner",
            measure=functools.partial(_measure, clients=clients),
            functions={"echo": HOT},
        )
        for clients in CLIENTS
    ),
    *(
        Scenario(
            name=f"workers-echo-{clients}",
            about=f"the same with {clients} client(s) and an LB of {WORKERS} processes",
            measure=functools.partial(_measure, clients=clients),
            functions={"echo": HOT},
            env={"FN_LB_WORKERS": str(WORKERS)},
        )
        for clients in CLIENTS[2:]
    ),
    *(
        Scenario(
            name=f"serve-echo-{clients}",
            about=f"the same from {clients} client(s) to one node, `hostler serve`",
            measure=functools.partial(_measure, clients=clients),
            functions={"echo": HOT},
            target="serve",
        )
        for clients in CLIENTS
    ),
    *(scenario for name, size in SIZES.items() for scenario in _sized(name, size)),
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
