"""A report as a picture: one panel per metric, one bar per scenario. What a scenario looked at
over time as a picture and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._report import Report

Series = Sequence[Mapping[str, float]]
"""One row per look; each has ``seconds``."""
METRICS = (
    "requests_per_s",
    "latency_p50_us",
    "latency_p99_us",
    "cpu_us_per_request/lb",
    "cpu_us_per_request/runner",
    "resident_mb/runner",
)
"""Those that are drawn, as far as the report has them."""


def plot_report(report: Report, path: Path) -> bool:
    """Write a picture, SVG or PNG by the name of ``path``: medians, and lines from the least to
    the most. Returns whether the report has any of `METRICS`; nothing is written without.

    Needs matplotlib, which is imported here because only pictures do.
    """
    from matplotlib.figure import Figure

    rows = {
        metric: {name: found[metric] for name, found in report.scenarios.items() if metric in found}
        for metric in METRICS
    }
    rows = {metric: row for metric, row in rows.items() if row}
    if not rows:
        return False
    heights = [len(row) for row in rows.values()]
    figure = Figure(figsize=(8, 1.2 * len(rows) + 0.25 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (metric, row) in zip(axes, rows.items(), strict=True):
        medians = [one.median for one in row.values()]
        below = [one.median - one.least for one in row.values()]
        above = [one.most - one.median for one in row.values()]
        panel.barh(list(row), medians, xerr=(below, above), height=0.6)
        panel.set_title(metric, loc="left", fontsize="small")
        panel.invert_yaxis()
    figure.suptitle(f"{report.commit}, {report.settings.get('driver', '')}", fontsize="small")
    figure.savefig(path)
    return True


def write_series(series: Series, path: Path) -> None:
    """Write ``path`` with the endings .csv and .svg: one panel per column, over ``seconds``."""
    from matplotlib.figure import Figure

    columns = list(series[0])
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in series)
    columns.remove("seconds")
    figure = Figure(figsize=(8, 1.3 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), 1, squeeze=False, sharex=True)[:, 0]
    seconds = [row["seconds"] for row in series]
    for panel, name in zip(axes, columns, strict=True):
        panel.step(seconds, [row[name] for row in series], where="post", linewidth=1)
        panel.set_title(name, loc="left", fontsize="small")
        panel.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    figure.savefig(path.with_suffix(".svg"))
