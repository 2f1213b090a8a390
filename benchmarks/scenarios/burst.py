"""Many functions called for the first time, at the same time."""

from __future__ import annotations

from .._embedded import run_module
from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Target
from ..burst import FUNCTIONS, BurstPlan

SECONDS_PER_ROUND = 5


def _measure(target: Target, settings: Settings) -> Metrics:
    rounds = max(2, round(settings.seconds / SECONDS_PER_ROUND))
    return run_module("burst", BurstPlan(driver=settings.driver, rounds=rounds))


SCENARIOS = (
    Scenario(
        name=f"burst-{FUNCTIONS}",
        about=f"{FUNCTIONS} cold functions at once in one agent, beside the driver alone",
        measure=_measure,
        target="none",
    ),
)
