"""``python -m benchmarks.attack``: lists the attacks, or runs them. See ``scripts/attack``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import trio

from . import Outcome, Row, attacks, takes_address
from ._beside import flood_beside
from ._world import World

HEAD = ("attack", "sent", "seconds", "cut after", "")
OUTCOMES = ("attack", "tried", "what happened", "held")
WIDTH = 56
"""Of a column of text."""
HELD = {True: "ok", False: "FAILED", None: "-"}


def cells(row: Row) -> tuple[str, ...]:
    """``row`` as the table shows it."""
    cut = "not cut" if row.cut_after is None else f"{row.cut_after:.2f} s"
    return row.attack, f"{row.sent:,}", f"{row.seconds:.2f}", cut, row.note


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def lines_of(name: str, outcome: Outcome) -> list[tuple[str, ...]]:
    """``outcome`` as the table shows it, long texts in several lines."""
    tried, happened = (textwrap.wrap(x, WIDTH) for x in (outcome.tried, outcome.happened))
    lines = max(len(tried), len(happened))
    tried += [""] * (lines - len(tried))
    happened += [""] * (lines - len(happened))
    first = [name, *[""] * (lines - 1)]
    last = [HELD[outcome.held], *[""] * (lines - 1)]
    return list(zip(first, tried, happened, last, strict=True))


def on_nodes(name: str, attack: ModuleType, world: World) -> Outcome:
    """Run ``attack`` on nodes that are started for it. That something fails is an outcome, too."""
    try:
        if not takes_address(attack):
            outcome = attack.run(world)
        elif hasattr(attack, "on_nodes"):
            outcome = trio.run(attack.on_nodes, world)
        else:
            outcome = trio.run(flood_beside, world, name)
    except Exception as error:  # noqa: BLE001  (whatever it is, the other attacks go on)
        return Outcome(tried=attack.ABOUT, happened=f"broken off: {error!r}", held=False)
    assert isinstance(outcome, Outcome)
    return outcome


def attack_nodes(names: Sequence[str], host: str, netns: str) -> int:
    """Run attacks on nodes that they start themselves, and print one table. 0 = all held."""
    rows: list[tuple[str, ...]] = [OUTCOMES]
    failed = 0
    begin = time.monotonic()
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="a", ignore_cleanup_errors=True) as folder:
            world = World(folder=Path(folder), host=host, netns=netns)
            outcome = on_nodes(name, attacks()[name], world)
        rows += lines_of(name, outcome)
        failed += outcome.held is False
    print(table(rows))
    print(f"{len(names)} attacks in {time.monotonic() - begin:.0f} s, {failed} did not hold")
    return min(failed, 1)


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__)
    parser.add_argument("--list", action="store_true", help="the attacks, and what they do")
    parser.add_argument("--nodes", metavar="HOST", help="start nodes at HOST, and attack them")
    parser.add_argument("--netns", default="", help="the attackers' network name space, a file")
    parser.add_argument("what", nargs="*", metavar="HOST:PORT or NAME")
    options = parser.parse_args(args)
    known = attacks()
    if options.list:
        print(table([(name, module.ABOUT) for name, module in known.items()]))
        return 0
    address, names = "", list(options.what)
    if names and ":" in names[0]:
        address = names.pop(0)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no attack is called {unknown[0]}")
    if options.nodes and not address:
        return attack_nodes(names or list(known), options.nodes, options.netns)
    if not address:
        parser.error("says no node: HOST:PORT, or scripts/attack as root for nodes of its own")
    if alone := [name for name in names if not takes_address(known[name])]:
        parser.error(f"{alone[0]} starts its nodes itself: it takes no HOST:PORT")
    rows = [
        cells(attack.run(address))
        for name, attack in known.items()
        if takes_address(attack) and (not names or name in names)
    ]
    print(table([HEAD, *rows]))
    return 0


def _interrupted(number: int, frame: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    # A script that starts this in the background has it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupted)
    status = 130
    try:
        status = main(sys.argv[1:])
    except* KeyboardInterrupt:
        pass
    sys.exit(status)
