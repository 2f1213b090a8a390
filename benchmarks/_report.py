"""Medians and spread of several runs: the file, the table, the comparison."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ._measure import Metrics

MORE_IS_BETTER = {
    *("requests_per_s", "megabytes_per_s", "containers_per_s"),
    *("calls_per_s", "calls_in_second", "share_of_ideal"),
    *("default_over_never", "served"),
}
"""What stands before the "/" in metrics of which more is better; of all others less is."""
MAX_OTHERS = 0.2
"""CPUs that processes outside of the benchmark may use while it runs."""
MIN_HEADROOM = 3
"""The load generator alone must be that many times faster than what it measures."""


class Summary(msgspec.Struct, frozen=True):
    """One metric over all runs."""

    median: float
    least: float
    most: float
    runs: list[float]

    @classmethod
    def of(cls, runs: list[float]) -> Summary:
        return cls(statistics.median(runs), min(runs), max(runs), runs)

    @property
    def spread(self) -> float:
        """Most minus least, as a fraction of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A session: what the JSON file holds. Units are in the metrics' names."""

    format: int = 1
    made_at: str
    commit: str
    machine: dict[str, str]
    settings: dict[str, str | float]
    scenarios: dict[str, dict[str, Summary]]


def summarise(runs: Sequence[Metrics]) -> dict[str, Summary]:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: Summary.of([run.get(name, 0.0) for run in runs]) for name in names}


def make_report(
    scenarios: dict[str, dict[str, Summary]], settings: dict[str, str | float]
) -> Report:
    return Report(
        made_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        machine=_machine(),
        settings=settings,
        scenarios=scenarios,
    )


def read_report(path: Path) -> Report:
    """Raises `ValueError` (msgspec's) if the file is something else."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def write_report(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def print_report(report: Report, console: Console) -> None:
    for name, metrics in report.scenarios.items():
        table = Table(title=name, title_justify="left", box=None)
        for column in ("metric", "median", "least", "most", "spread"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for metric, summary in metrics.items():
            numbers = [_number(n) for n in (summary.median, summary.least, summary.most)]
            table.add_row(metric, *numbers, f"{summary.spread:.0%}")
        console.print(table)
    for warning in warnings_of(report):
        console.print(f"warning: {warning}", style="yellow")


def warnings_of(report: Report) -> list[str]:
    """Where the numbers may say more about the load generator, or the neighbours."""
    found = []
    for name, metrics in report.scenarios.items():
        others = metrics.get("cpus_of_others")
        if others and others.most > MAX_OTHERS and report.settings.get("driver") == "process":
            found.append(f"{name}: other processes used {others.most:.1f} CPUs")
        ceiling = report.scenarios.get(f"ceiling-{name.rpartition('-')[2]}")
        measured = metrics.get("requests_per_s")
        if name.startswith("ceiling-") or ceiling is None or measured is None:
            continue
        rate, limit = measured.median, ceiling["requests_per_s"].median
        if limit < rate * MIN_HEADROOM:
            found.append(f"{name}: {rate:.0f} requests/s of the generator's {limit:.0f}")
    return found


def print_comparison(old: Report, new: Report, console: Console) -> None:
    """A change counts where the runs of both sides do not overlap."""
    if old.machine != new.machine or old.settings != new.settings:
        console.print("warning: not the same machine or settings", style="yellow")
    for name in new.scenarios:
        if name not in old.scenarios:
            continue
        table = Table(title=f"{name}: {old.commit} -> {new.commit}", title_justify="left", box=None)
        for column in ("metric", "old", "new", "change", ""):
            table.add_column(column, justify="left" if column in ("metric", "") else "right")
        for metric, summary in new.scenarios[name].items():
            before = old.scenarios[name].get(metric)
            if before and before.median:
                change = summary.median / before.median - 1
                verdict = verdict_of(metric, before, summary)
                numbers = (_number(before.median), _number(summary.median))
                table.add_row(metric, *numbers, f"{change:+.1%}", verdict)
        console.print(table)


def verdict_of(metric: str, old: Summary, new: Summary) -> str:
    """``better``, ``worse``, or nothing if the runs' ranges overlap."""
    more = metric.partition("/")[0] in MORE_IS_BETTER
    if new.least > old.most:
        return "better" if more else "worse"
    if new.most < old.least:
        return "worse" if more else "better"
    return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, str]:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
