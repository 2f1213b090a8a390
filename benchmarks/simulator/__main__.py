"""``python -m benchmarks.simulator``: simulate placers and print a table."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from rich.console import Console

from hostler.pool import PLACERS

from ._plot import plot_results
from ._report import print_table, write_results
from ._run import Plan, simulate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulator",
        description="Compare placers on a synthetic load, in virtual time.",
    )
    add = parser.add_argument
    add("placers", nargs="*", metavar="PLACER", help=f"of {', '.join(PLACERS)} (default: all)")
    add("--runners", type=int, nargs="+", default=[10, 100, 1000])
    add("--load", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="busy part of the memory")
    add("--seconds", type=float, default=240.0, help="of virtual time, measured (default: 240)")
    add("--warm-up", type=float, default=60.0, help="the same, before that (default: 60)")
    add("--memory", type=int, default=4096, help="MB of a runner (default: 4096)")
    add("--lbs", type=int, default=2, help="load balancers (default: 2)")
    add("--seed", type=int, default=1)
    add("--output", type=Path, default=Path("build/simulation.json"))
    add("--plot", type=Path, help="also draw the results, as an SVG or a PNG file")
    return parser


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    for name in options.placers:
        if name not in PLACERS:
            parser.error(f"no such placer: {name}")
    console = Console(highlight=False)
    results = []
    for runners, load in itertools.product(options.runners, options.load):
        for placer in options.placers or PLACERS:
            plan = Plan(
                placer=placer,
                runners=runners,
                load=load,
                seconds=options.seconds,
                warm_up=options.warm_up,
                memory=options.memory,
                lbs=options.lbs,
                seed=options.seed,
            )
            results.append(simulate(plan))
            write_results(results, options.output)
            console.print(f"{runners} runners, load {load:.0%}, {placer}: done")
    print_table(results, console)
    if options.plot is not None:
        plot_results(results, options.plot)
    console.print(f"written to {options.output} and {options.output.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
