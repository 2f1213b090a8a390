"""What hot functions cost that have nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler
from .._usage import Usage, usage_of
from ..load import post

FUNCTIONS = {"process": 1000, "docker": 40}
"""By driver: containers take tenths of a second each to start, and memory of the engine."""
MEMORY = 8
FIRST = 10
"""Functions whose launch pays for what the first ones load; they do not count."""
CALLERS = 8
SETTLE = 3.0
"""Seconds until all are frozen and what the calls left behind is gone."""
ENV = {"FN_MAX_TOTAL_MEMORY_BYTES": str(2**40)}


def _measure(target: Target, settings: Settings) -> Metrics:
    count = FUNCTIONS[settings.driver]
    names = [f"f{number}" for number in range(count)]
    functions = {name: {"memory": MEMORY, "idle_timeout": 300} for name in names}
    with open_hostler(functions, settings.driver, ENV) as nodes:
        _call(nodes, names[:FIRST])
        few = _usage(nodes)
        _call(nodes, names[FIRST:])
        time.sleep(SETTLE)
        many = _usage(nodes)
        time.sleep(settings.seconds)
        rested = _usage(nodes)
    metrics: Metrics = {"functions": count}
    for name in ("lb", "runner"):
        grown = many[name].resident_mb - few[name].resident_mb
        metrics[f"resident_kb_per_function/{name}"] = grown * 1024 / (count - FIRST)
        metrics[f"resident_mb/{name}"] = rested[name].resident_mb
        used = rested[name].cpu_us - many[name].cpu_us
        metrics[f"cpu_ms_per_s_at_rest/{name}"] = used / 1e3 / settings.seconds
    return metrics


def _usage(nodes: Target) -> dict[str, Usage]:
    return {name: usage_of(pids) for name, pids in nodes.processes().items()}


def _call(nodes: Target, names: Sequence[str]) -> None:
    """Each once, some at a time."""
    with ThreadPoolExecutor(CALLERS) as pool:
        for answer in pool.map(lambda name: post(nodes.address, nodes.paths[name]), names):
            if answer.status != 200:
                raise RunFailed(f"status {answer.status}: {answer.body[:200]!r}")


SCENARIOS = (
    Scenario(
        name="idle",
        about="many hot functions at rest (1 000 processes, 40 containers): memory and CPU",
        measure=_measure,
        target="none",
    ),
)
