"""A soak: many functions, containers that are killed at random, nothing may be left."""

from __future__ import annotations

from .._embedded import LIMIT, run_module
from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target
from ..soak import SoakPlan

CALLS_PER_SECOND = {"process": 400, "docker": 40}
"""To make the number of calls of the time that is asked for: 20 000 are ``--seconds 50`` with
processes, ``--seconds 500`` with Docker."""
SLOWEST = 10.0
"""Calls per second below which a soak is given up."""
MUST_BE_0 = ("left_", "calls_failed_without_a_kill")


def _measure(target: Target, settings: Settings) -> Metrics:
    calls = max(200, round(settings.seconds * CALLS_PER_SECOND[settings.driver]))
    limit = LIMIT + calls / SLOWEST
    metrics = run_module("soak", SoakPlan(driver=settings.driver, calls=calls), limit)
    wrong = {name: value for name, value in metrics.items() if name.startswith(MUST_BE_0) and value}
    if wrong:
        raise RunFailed(f"left behind, or failed without a reason: {wrong}")
    return metrics


SCENARIOS = (
    Scenario(
        name="soak",
        about="calls over 50 functions whose containers are killed at random, in one agent",
        measure=_measure,
        target="none",
    ),
)
