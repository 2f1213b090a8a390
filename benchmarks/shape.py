"""``python -m benchmarks.shape``: how large and how tangled the package is, in one table, and what
stands behind each figure. What the source tells is counted by `tests.shape`, as the tests of layers
have it; what a call does, by `benchmarks._hot_call`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import attrs

from tests.shape import House, cut

from ._hot_call import CLIENTS, NODES, HotCall, trace_hot_call


@attrs.frozen
class Figure:
    """One row."""

    name: str
    about: str
    most: float
    """It is to be at most so much."""
    value: Callable[[House], float]
    behind: Callable[[House], list[str]]
    """What `--list` prints, a line each."""
    of_a_call: bool = False
    """Whether nodes have to be started for it."""


def _counted(name: str, about: str, most: int, behind: Callable[[House], list[str]]) -> Figure:
    return Figure(name, about, most, lambda house: len(behind(house)), behind)


def _cycles(house: House) -> list[str]:
    return [
        f"{len(group)} modules: "
        + ", ".join(
            f"{name} -> {other}" for name in group for other in sorted(house.graph[name] & {*group})
        )
        for group in house.cycles
    ]


def _public_class_names(house: House) -> list[str]:
    return [
        f"{name}: {', '.join(homes)}"
        for name, homes in house.class_homes().items()
        if not name.startswith("_")
    ]


def _large_packages(house: House) -> list[str]:
    return [f"{name}: {len(house.packages[name])}" for name in house.large_packages()]


def _crossed(call: HotCall) -> list[str]:
    lines: list[str] = []
    seen: set[str] = set()
    for node in NODES:
        for number, (name, function) in enumerate(call.modules[node].items(), 1):
            again = " (again)" if name in seen else ""
            lines.append(f"{node:6} {number:3} {name:40} {function}{again}")
        seen.update(call.modules[node])
    return lines


def _frames(node: str) -> Callable[[HotCall], list[str]]:
    def listed(call: HotCall) -> list[str]:
        return [
            f"task {number}: {function}"
            for number, chain in enumerate(call.rest[node], 1)
            for function in chain
        ]

    return listed


def _calls(call: HotCall) -> list[str]:
    return [
        f"{node}, {clients}: {python:.0f} of Python, {c:.0f} of C"
        for clients, both in (
            ("1 client", call.calls),
            (f"{CLIENTS} clients", call.calls_of_many),
        )
        for node, (python, c) in both.items()
    ]


def _of_a_call(
    name: str,
    about: str,
    most: float,
    value: Callable[[HotCall], float],
    behind: Callable[[HotCall], list[str]],
) -> Figure:
    return Figure(
        name,
        about,
        most,
        lambda _: value(trace_hot_call()),
        lambda _: behind(trace_hot_call()),
        of_a_call=True,
    )


FIGURES = (
    _counted("modules", "modules in src/hostler, but the generated one", 240, House.line_counts),
    Figure(
        "lines",
        "lines in them",
        45_000,
        lambda house: sum(one.lines for one in house.modules.values()),
        House.line_counts,
    ),
    _of_a_call(
        "crossed",
        "modules that a hot call crosses, LB and runner",
        40,
        lambda call: len(call.crossed),
        _crossed,
    ),
    _of_a_call(
        "frames-lb",
        "coroutine frames of a hot call at rest, LB",
        10,
        lambda call: call.frames("lb"),
        _frames("lb"),
    ),
    _of_a_call(
        "frames-runner",
        "the same on the runner",
        9,
        lambda call: call.frames("runner"),
        _frames("runner"),
    ),
    _of_a_call(
        "python-calls",
        f"calls of Python per hot call on the LB, {CLIENTS} clients",
        671,
        lambda call: call.calls_of_many["lb"][0],
        _calls,
    ),
    _of_a_call(
        "c-calls",
        "calls of C",
        402,
        lambda call: call.calls_of_many["lb"][1],
        _calls,
    ),
    _counted("callables", "parameters of type Callable", 90, House.callable_parameters),
    _counted(
        "arguments", "functions with six or more arguments beside self", 25, House.many_arguments
    ),
    _counted("cycles", "import cycles, TYPE_CHECKING included", 0, _cycles),
    _counted("classes", "public class names that stand in two modules", 5, _public_class_names),
    _counted("packages", "packages with more than 17 modules of their own", 1, _large_packages),
)


def _table(house: House, figures: list[Figure]) -> str:
    lines = [f"{'':13} {'':52} {'now':>6}  {'then':>8}"]
    for one in figures:
        now = one.value(house)
        verdict = "ok" if now <= one.most else "not"
        lines.append(
            f"{one.name:13} {one.about:52} {now:>6.0f}  {f'≤ {one.most:.0f}':>8}  {verdict}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/shape", description=__doc__)
    names = [one.name for one in FIGURES]
    parser.add_argument(
        "--list",
        nargs="+",
        choices=names,
        metavar="FIGURE",
        help=f"what stands behind: {', '.join(names)}",
    )
    parser.add_argument(
        "--static", action="store_true", help="only what the source tells: start no nodes"
    )
    parser.add_argument(
        "--cut",
        action="store_true",
        help="take what the tests of layers find no more out of tests/allowed",
    )
    options = parser.parse_args()
    house = House()
    if options.cut:
        for line in cut(house):
            print(line)
    elif options.list:
        for name in options.list:
            if len(options.list) > 1:
                print(f"== {name}")
            print("\n".join(FIGURES[names.index(name)].behind(house)))
    else:
        print(_table(house, [one for one in FIGURES if not (options.static and one.of_a_call)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
