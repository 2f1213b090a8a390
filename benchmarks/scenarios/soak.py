"""A soak: many functions, containers that are killed at random, nothing may be left."""

from __future__ import annotations

from .._embedded import run_module
from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target
from ..soak import SoakPlan

CALLS_PER_SECOND = {"process": 400, "docker": 40}
"""To make the number of calls of the time that is asked for; ``--seconds 50`` is about 20 000 with
processes."""


def _measure(target: Target, settings: Settings) -> Metrics:
    calls = max(200, round(settings.seconds * CALLS_PER_SECOND[settings.driver]))
    metrics = run_module("soak", SoakPlan(driver=settings.driver, calls=calls))
    left = {name: value for name, value in metrics.items() if name.startswith("left_") and value}
    if left:
        raise RunFailed(f"left behind: {left}")
    return metrics


SCENARIOS = (
    Scenario(
        name="soak",
        about="calls over 50 functions whose containers are killed at random, in one agent",
        measure=_measure,
        target="none",
    ),
)
