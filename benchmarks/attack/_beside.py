"""An attack on a runner's port beside a good caller."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

import attrs
import trio

from tests.system.http import call
from tests.system.load import Load
from tests.system.nodes import Fleet

from .._usage import descendants, machine_cpu_us, usage_of
from ._row import Outcome
from ._world import World

SECONDS = 3.0
RATE = 100
"""Calls a second of the good caller."""
SLOWER = 3.0
"""How much longer its calls may take, by their p99."""
NOISE_MS = 5.0
"""A p99 below that, before the attack, counts as that: a few milliseconds are the machine's."""
GROWTH_MB = 20.0
CUT_S = 1.0
BUSY = 0.2
"""CPUs of strangers from which on the figures are not the attack's alone."""
TRIES = 3


async def flood_beside(world: World, name: str) -> Outcome:
    """The port attack ``name``, again and again for some seconds. If it does not hold while others
    use this machine, which nobody can tell from the attack's doing, it is tried again."""
    async with world.fleet() as fleet:
        await call(fleet.lb)
        tries = 1
        outcome, others = await _flood(world, fleet, name)
        while not outcome.held and others >= BUSY and tries < TRIES:
            tries += 1
            outcome, others = await _flood(world, fleet, name)
    if others >= BUSY:
        note = f" (strangers used {others:.1f} CPUs; try {tries} of {TRIES})"
        outcome = attrs.evolve(outcome, happened=outcome.happened + note)
    return outcome


async def _flood(world: World, fleet: Fleet, name: str) -> tuple[Outcome, float]:
    """What became of it, and how many CPUs others used meanwhile."""
    (runner,) = fleet.runners
    began, others = trio.current_time(), machine_cpu_us() - _own_cpu_us()
    before = await good_caller(fleet, SECONDS)
    pids = [runner.node.process.pid]
    memory = peak = usage_of(pids).resident_mb

    def look() -> None:
        nonlocal peak
        peak = max(peak, usage_of(pids).resident_mb)

    async with world.attacked(runner.address, name, SECONDS) as rows:
        during = await good_caller(fleet, SECONDS, look)
    look()
    others = machine_cpu_us() - _own_cpu_us() - others
    sent = sum(row["sent"] for row in rows)
    cuts = [row["cut_after"] for row in rows]
    cut = max((x for x in cuts if x is not None), default=0.0)
    failed = len(before.failed()) + len(during.failed())
    slow, quick = p99_ms(during), p99_ms(before)
    held = (
        None not in cuts
        and cut <= CUT_S
        and not failed
        and peak - memory <= GROWTH_MB
        and slow <= SLOWER * max(quick, NOISE_MS)
    )
    uncut = f", {cuts.count(None)} NOT CUT" if None in cuts else ""
    outcome = Outcome(
        tried=f"{len(rows)} connections in {SECONDS:.0f} s, {sent:,} sent",
        happened=(
            f"each cut within {cut:.2f} s{uncut}; {failed} of {len(during.answers)} good calls "
            f"failed, their p99 {quick:.1f} -> {slow:.1f} ms; runner +{peak - memory:.1f} MB"
        ),
        held=held,
    )
    return outcome, others / 1e6 / (trio.current_time() - began)


def _own_cpu_us() -> float:
    """Of this process, the nodes and the attackers."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = os.getpid()
    living = usage_of([own, *descendants(own)]).cpu_us
    return living + (ended.ru_utime + ended.ru_stime) * 1e6


async def good_caller(fleet: Fleet, seconds: float, look: Callable[[], object] = int) -> Load:
    """Someone who calls beside; ``look`` is called all the time."""
    load = Load(fleet.lb, "")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run_rate, RATE)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            look()
            await trio.sleep(0.05)
        load.stop.set()
    return load


def p99_ms(load: Load) -> float:
    took = sorted(answer.ended - answer.began for answer in load.answers)
    return took[len(took) * 99 // 100] * 1e3
