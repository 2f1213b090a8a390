"""``python -m benchmarks.keep_alive``: compare keep-alive policies; tables for the docs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ._plot import plot_results
from ._report import tables, update_document, write_results
from ._run import IDLE_SECONDS, Plan, simulate

TIMEOUTS = (10, 30, 60, 120, 300, 600)
PERCENTS = (33, 100, 140, 170, 210, 250)
"""About as much memory as those take."""
PAIR: tuple[dict[str, Any], ...] = (
    {"policy": "fixed", "setting": round(IDLE_SECONDS)},
    {"policy": "predictive", "setting": 100},
)
"""Policies that use the same memory."""
LOADS: tuple[dict[str, Any], ...] = (
    {},
    {"regular": False},
    {"functions": 50},
    {"functions": 800, "memory": 65536},
    {"memory": 6144},
    {"functions": 80, "busy": 0.25},
    {"functions": 80, "busy": 0.5},
)


def _plans(seeds: int, hours: float) -> Iterator[Plan]:
    """In the order of the tables. The first load comes with all policies."""
    everything: list[dict[str, Any]] = [
        *({"policy": "fixed", "setting": setting} for setting in TIMEOUTS),
        *({"policy": "predictive", "setting": setting} for setting in PERCENTS),
        {"policy": "greedy-dual"},
    ]
    for load in LOADS:
        for policy in PAIR if load else everything:
            for seed in range(1, seeds + 1):
                yield Plan(**policy, **load, seed=seed, hours=hours)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.keep_alive",
        description="Compare keep-alive policies on a synthetic load, in virtual time.",
    )
    add = parser.add_argument
    add("--seeds", type=int, default=5, help="loads of each kind (default: 5)")
    add(
        "--hours",
        type=float,
        default=8.0,
        help="hours of virtual time, of which a quarter is warm-up",
    )
    add("--processes", type=int, default=os.cpu_count() or 1)
    add("--output", type=Path, default=Path("build/keep_alive.json"))
    add("--document", type=Path, help="renew the tables in this Markdown file")
    add("--plot", type=Path, help="also draw the first load, as an SVG or a PNG file")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        results = list(pool.map(simulate, _plans(options.seeds, options.hours)))
    write_results(results, options.output)
    print(tables(results))
    if options.document is not None:
        update_document(results, options.document)
    if options.plot is not None:
        plot_results(results, options.plot)


if __name__ == "__main__":
    main()
