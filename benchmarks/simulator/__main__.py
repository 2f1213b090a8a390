"""``python -m benchmarks.simulator``: simulate placers, print a table, and put it into the docs."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from hostler.pool import PLACERS

from ._growth import print_growth
from ._plot import plot_results
from ._report import medians, print_table, read_results, update_document, write_results
from ._run import ORACLE, Plan, Result, simulate

NAMES = (*PLACERS, ORACLE)
WARM_UP = 35.0
"""Seconds; containers of the first ones have idled out by then."""
CALLS = 30_000
"""Calls in the measured time, about; bounded by `SECONDS`."""
SECONDS = (10.0, 240.0)
CALLS_PER_RUNNER = 5.0
"""Per second and runner, at full load, about."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulator",
        description="Compare placers on a synthetic load, in virtual time.",
    )
    add = parser.add_argument
    add("placers", nargs="*", metavar="PLACER", help=f"of {', '.join(NAMES)} (default: all)")
    add("--runners", type=int, nargs="+", default=[10, 100, 1000])
    add("--load", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="busy share of the memory")
    add("--seconds", type=float, help="measured virtual seconds (default: 10 to 240, by the load)")
    add(
        "--warm-up",
        type=float,
        default=WARM_UP,
        help=f"seconds before that (default: {WARM_UP:.0f})",
    )
    add("--memory", type=int, default=4096, help="MB of a runner (default: 4096)")
    add("--lbs", type=int, default=2, help="load balancers (default: 2)")
    add("--seeds", type=int, default=3, help="loads of each kind (default: 3)")
    add("--processes", type=int, default=os.cpu_count() or 1)
    add("--output", type=Path, default=Path("build/simulation.json"))
    add(
        "--with",
        type=Path,
        nargs="+",
        default=[],
        dest="earlier",
        metavar="FILE",
        help="JSON files of earlier runs, whose results are shown as well",
    )
    add("--document", type=Path, help="renew the table in this Markdown file")
    add(
        "--growth",
        action="store_true",
        help="instead, let many clients of one function come at once, and show what they get",
    )
    add("--plot", type=Path, help="also draw the results, as an SVG or a PNG file")
    return parser


def _plans(options: argparse.Namespace) -> Iterator[Plan]:
    """The longest first, so that no process is left alone with one at the end."""
    kinds = itertools.product(
        sorted(options.runners, reverse=True),
        sorted(options.load, reverse=True),
        range(1, options.seeds + 1),
        options.placers or NAMES,
    )
    for runners, load, seed, placer in kinds:
        least, most = SECONDS
        seconds = min(most, max(least, CALLS / (CALLS_PER_RUNNER * runners * load)))
        yield Plan(
            placer=placer,
            runners=runners,
            load=load,
            seconds=options.seconds or seconds,
            warm_up=options.warm_up,
            memory=options.memory,
            lbs=options.lbs,
            seed=seed,
        )


def _sort(results: list[Result]) -> None:
    results.sort(key=lambda one: (one.runners, one.load, NAMES.index(one.placer), one.seed))


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    for name in options.placers:
        if name not in NAMES:
            parser.error(f"no such placer: {name}")
    console = Console(highlight=False)
    if options.growth:
        print_growth(options.placers or tuple(PLACERS), sorted({1, options.lbs}), console)
        return
    results = [result for path in options.earlier for result in read_results(path)]
    with ProcessPoolExecutor(options.processes) as pool:
        for future in as_completed(pool.submit(simulate, plan) for plan in _plans(options)):
            result = future.result()
            results.append(result)
            _sort(results)
            write_results(results, options.output)
            load = f"load {result.load:.0%}, seed {result.seed}"
            console.print(f"{result.runners} runners, {load}, {result.placer}: done")
    _sort(results)
    print_table(medians(results), console)
    if options.document is not None:
        update_document(medians(results), options.document)
    if options.plot is not None:
        plot_results(medians(results), options.plot)
    console.print(f"written to {options.output} and {options.output.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
