"""What a scenario is, and where they are found.

A scenario is a module in ``scenarios/`` with a tuple ``SCENARIOS``. Its processes are started
once; then ``measure`` is called for each run.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from ._measure import Metrics
from ._plot import Series, write_series
from ._target import Target


@attrs.frozen(kw_only=True)
class Settings:
    """Of a whole session. ``warm_up`` and ``seconds`` are per run."""

    warm_up: float
    seconds: float
    driver: str = "process"
    series: Path | None = None
    """A folder for what scenarios look at over time."""

    def scaled(self, seconds: float) -> float:
        """A time of a scenario that has its own course: as it is with five seconds per run, and
        else as much shorter or longer."""
        return seconds * self.seconds / 5.0

    def keep_series(self, name: str, series: Series) -> None:
        """Write it as CSV, and as a picture, if there is a folder for it. Blocks."""
        if self.series and series:
            self.series.mkdir(parents=True, exist_ok=True)
            number = len(list(self.series.glob(f"{name}-*.csv"))) + 1
            write_series(series, self.series / f"{name}-{number}")


@attrs.frozen(kw_only=True)
class Scenario:
    """One thing to measure."""

    name: str
    about: str
    measure: Callable[[Target, Settings], Metrics]
    target: Literal["hostler", "serve", "function", "none"] = "hostler"
    """``hostler``: an LB and a runner; ``serve``: one node; ``function``: a bare function without
    hostler, as a yardstick; ``none``: the scenario starts what it measures itself."""
    functions: Mapping[str, Mapping[str, Any]] = {"echo": {}}
    """Entries of the declaration file. Only a scenario with just ``echo`` can go to a URL."""
    env: Mapping[str, str] = {}
    """Settings of the nodes."""
    drivers: tuple[str, ...] = ("process", "docker")
    only_by_name: bool = False
    """Not among "all of them": it takes minutes."""

    @property
    def fits_url(self) -> bool:
        return self.target == "hostler" and list(self.functions) == ["echo"] and not self.env


def all_scenarios() -> dict[str, Scenario]:
    """By name, in the order of the modules' names and of the tuples."""
    package = importlib.import_module(f"{__package__}.scenarios")
    found: dict[str, Scenario] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for scenario in module.SCENARIOS:
            assert scenario.name not in found, f"two scenarios are called {scenario.name}"
            found[scenario.name] = scenario
    return found
