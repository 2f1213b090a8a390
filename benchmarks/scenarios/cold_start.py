"""Cold calls by stage, beside what the driver alone needs for the same container."""

from __future__ import annotations

from .._embedded import run_module
from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Target
from ..cold import ColdPlan

SECONDS_PER_ROUND = 0.5


def _measure(target: Target, settings: Settings) -> Metrics:
    rounds = max(3, round(settings.seconds / SECONDS_PER_ROUND))
    return run_module("cold", ColdPlan(driver=settings.driver, rounds=rounds))


SCENARIOS = (
    Scenario(
        name="cold-start",
        about="cold and pre-warmed first calls in one agent, beside the driver alone",
        measure=_measure,
        target="none",
    ),
)
