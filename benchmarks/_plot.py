"""A report as a picture: one panel per metric, one bar per scenario."""

from __future__ import annotations

from pathlib import Path

from ._report import Report

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
