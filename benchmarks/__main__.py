"""``python -m benchmarks``: runs scenarios, writes a JSON file and prints a table."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import sys
from itertools import chain
from pathlib import Path

from rich.console import Console

from ._measure import RunFailed
from ._plot import plot_report
from ._report import (
    Summary,
    make_report,
    print_comparison,
    print_report,
    read_report,
    summarise,
    write_report,
)
from ._scenario import Scenario, Settings, all_scenarios
from ._target import NotReady, Target, open_function, open_hostler, open_serve, open_url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure hostler's nodes as real processes on loopback."
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help="names or patterns (default: all)")
    add("--list", action="store_true", help="list the scenarios, and run nothing")
    add("--driver", choices=("process", "docker"), default="process")
    add(
        "--url", help="measure this: the URL of an echo function at any Fn-compatible load balancer"
    )
    add("--runner-workers", type=int, default=1, help="processes of each runner (default: 1)")
    add("--any-answer", action="store_true", help="with --url: check only the status of answers")
    add("--placer", metavar="NAME", help="placer of the nodes (default: hostler's default)")
    add("--runs", type=int, default=5, help="runs per scenario (default: 5)")
    add("--seconds", type=float, default=5.0, help="measured seconds per run (default: 5)")
    add("--warm-up", type=float, default=2.0, help="seconds before each run (default: 2)")
    add("--output", type=Path, default=Path("build/bench.json"), help="the JSON file to write")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the results to this file")
    add("--series", type=Path, metavar="FOLDER", help="write figures over time to this folder")
    add(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="compare with the results of an earlier run",
    )
    return parser


def _open(
    scenario: Scenario, options: argparse.Namespace
) -> contextlib.AbstractContextManager[Target]:
    if scenario.target == "function":
        return open_function()
    if scenario.target == "none":
        return contextlib.nullcontext(Target(address="", paths={}, processes=dict))
    if scenario.target == "serve":
        return open_serve(scenario.functions, options.driver, scenario.env)
    if options.url:
        return open_url(options.url, options.any_answer)
    env = {"FN_RUNNER_WORKERS": str(options.runner_workers), **scenario.env}
    return open_hostler(scenario.functions, options.driver, env)


def _choose(options: argparse.Namespace) -> list[Scenario]:
    known = all_scenarios()
    found = {name: fnmatch.filter(known, name) for name in options.scenarios}
    unknown = [name for name, names in found.items() if not names]
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(unknown)} (see --list)")
    if found:
        chosen = [known[name] for name in dict.fromkeys(chain.from_iterable(found.values()))]
    else:
        chosen = [
            one for one in known.values() if options.driver in one.drivers and not one.only_by_name
        ]
    if options.url:
        chosen = [one for one in chosen if one.fits_url or one.target == "function"]
    return chosen


def _run(scenario: Scenario, options: argparse.Namespace, console: Console) -> dict[str, Summary]:
    settings = Settings(
        warm_up=options.warm_up,
        seconds=options.seconds,
        driver=options.driver,
        series=options.series,
    )
    console.print(f"{scenario.name}: {scenario.about}", style="bold", soft_wrap=True)
    runs = []
    with _open(scenario, options) as target:
        for number in range(options.runs):
            runs.append(scenario.measure(target, settings))
            rate = runs[-1].get("requests_per_s")
            note = f"{rate:,.0f} requests/s" if rate else "done"
            console.print(f"  run {number + 1} of {options.runs}: {note}")
    return summarise(runs)


def main() -> int:
    options = _parser().parse_args()
    console = Console(highlight=False)
    if options.list:
        for scenario in all_scenarios().values():
            minutes = " (takes minutes, runs only if named)" if scenario.only_by_name else ""
            console.print(f"{scenario.name}: {scenario.about}{minutes}")
        return 0
    if options.placer:
        os.environ["FN_PLACER"] = options.placer  # the nodes inherit it
    old = read_report(options.compare) if options.compare else None
    chosen = _choose(options)
    results: dict[str, dict[str, Summary]] = {}
    for one in chosen:
        try:
            results[one.name] = _run(one, options, console)
        except (RunFailed, NotReady) as error:  # what others have measured still counts
            console.print(f"benchmarks: {one.name}: {error}", style="red", markup=False)
    if not results:
        return 1
    report = make_report(
        results,
        {
            "driver": "url" if options.url else options.driver,
            "runs": options.runs,
            "seconds": options.seconds,
            "warm_up": options.warm_up,
            "runner_workers": options.runner_workers,
            "placer": os.environ.get("FN_PLACER", ""),
        },
    )
    write_report(report, options.output)
    console.print()
    print_report(report, console)
    if old:
        console.print()
        print_comparison(old, report, console)
    if options.plot and not plot_report(report, options.plot):
        console.print("warning: nothing to draw in these scenarios", style="yellow")
    console.print(f"written to {options.output}")
    return 0 if len(results) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
