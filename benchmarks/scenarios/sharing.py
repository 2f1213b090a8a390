"""Functions that share a runner, and runners that share their machine with something else."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._counters import launches, read_samples, total, until_containers
from .._measure import Metrics, RunFailed
from .._plan import Answered, Ask, Crowd, CrowdPlan, CrowdResult
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler, pinned
from .._usage import machine_cpu_us, usage_of
from ..crowd import run_crowd
from .growth import HOT, MEMORY, health_of, percentile, rate_between, singles

MIB = 2**20


def _room_for(containers: int) -> dict[str, str]:
    return {
        "FN_HTTP_BIND": "127.0.0.1:0",
        "FN_MAX_TOTAL_MEMORY_BYTES": str(containers * MEMORY * MIB),
    }


# --- a neighbour that comes in bursts ---

STEADY_RATE, STEADY_RUN = 20.0, 20
"""Calls per second, and milliseconds of each."""
BURST, BURST_RUN, BURST_EVERY = 40, 100, 3.0
"""Calls at once, milliseconds of each, and seconds from one burst to the next."""
NEIGHBOURS = 24.0
"""Seconds alone, and together."""
ROOMY, TIGHT = 160, 12
"""Containers that the runner has room for."""


def _neighbours(target: Target, settings: Settings, *, room: int) -> Metrics:
    seconds, every = settings.scaled(NEIGHBOURS), settings.scaled(BURST_EVERY)
    with open_hostler({"steady": HOT, "bursts": HOT}, settings.driver, _room_for(room)) as nodes:
        time.sleep(settings.warm_up)
        steady = Crowd(
            asks=[Ask(path=nodes.paths["steady"], headers={"Fnt-Do": f"sleep={STEADY_RUN}"})],
            arrivals=[number / STEADY_RATE for number in range(round(seconds * STEADY_RATE))],
        )
        bursts = Crowd(
            asks=[Ask(path=nodes.paths["bursts"], headers={"Fnt-Do": f"sleep={BURST_RUN}"})],
            arrivals=[
                (number + 0.5) * every
                for number in range(max(1, int(seconds / every)))
                for _ in range(BURST)
            ],
        )
        plan = CrowdPlan(address=nodes.address, crowds=[steady], seconds=seconds)
        singles(nodes, "steady", steady.asks[0].headers)
        run_crowd(_first_of(plan, seconds / 8))
        alone = run_crowd(plan)
        launched = launches(nodes)
        both = run_crowd(CrowdPlan(address=nodes.address, crowds=[steady, bursts], seconds=seconds))
        started = launches(nodes) - launched
    with_bursts = [one for one in both.answered if one.crowd == 0]
    in_bursts = [one for one in both.answered if one.crowd == 1]
    return {
        "p99_over_alone": _ms(with_bursts, 99) / _ms(alone.answered, 99),
        **{
            f"{name}/{which}": _ms(answered, percent)
            for name, percent in (("p50_ms", 50), ("p99_ms", 99), ("max_ms", 100))
            for which, answered in (("with_bursts", with_bursts), ("alone", alone.answered))
        },
        "failed_alone": sum(one.status != 200 for one in alone.answered),
        "failed_in_bursts": sum(one.status != 200 for one in in_bursts),
        "burst_p50_ms": _ms(in_bursts, 50),
        "burst_p99_ms": _ms(in_bursts, 99),
        "burst_p99_ms/ideal": BURST_RUN * -(-BURST // min(BURST, room - 1)),
        "containers_started": started,
        **health_of(both, seconds),
    }


def _first_of(plan: CrowdPlan, seconds: float) -> CrowdPlan:
    """The first ``seconds`` of ``plan``."""
    crowds = [
        Crowd(
            asks=crowd.asks,
            weights=crowd.weights,
            clients=crowd.clients,
            pause=crowd.pause,
            arrivals=[at for at in crowd.arrivals if at < seconds],
        )
        for crowd in plan.crowds
    ]
    return CrowdPlan(address=plan.address, crowds=crowds, seconds=seconds)


def _ms(answered: Sequence[Answered], percent: int) -> float:
    """A percentile of how long the calls took that were served."""
    return percentile([one.took for one in answered if one.status == 200], percent) * 1e3


# --- more functions than places ---

FUNCTIONS = [f"f{number:02}" for number in range(50)]
PLACES = (16, 24, 40)
CLIENTS, PAUSE = 8, 0.05
ZIPF_WARM_UP, ZIPF = 5.0, 25.0
RUNS: Mapping[str, Sequence[int]] = {"": (10,), "-mixed": (10, 100, 1000)}
"""Milliseconds of the functions' calls, in turn."""


def _zipf(target: Target, settings: Settings, *, places: int, runs: Sequence[int]) -> Metrics:
    warm_up, seconds = settings.scaled(ZIPF_WARM_UP), settings.scaled(ZIPF)
    functions = dict.fromkeys(FUNCTIONS, HOT)
    weights = [1.0 / (rank + 1) for rank in range(len(FUNCTIONS))]
    dos = [{"Fnt-Do": f"sleep={runs[rank % len(runs)]}"} for rank in range(len(FUNCTIONS))]

    def load(nodes: Target, names: Sequence[str], seconds: float, seed: int) -> CrowdResult:
        asks = [
            Ask(path=nodes.paths[name], headers=do) for name, do in zip(names, dos, strict=True)
        ]
        crowd = Crowd(asks=asks, weights=weights, clients=[(0.0, CLIENTS)], pause=PAUSE)
        plan = CrowdPlan(address=nodes.address, crowds=[crowd], seconds=seconds, seed=seed)
        return run_crowd(plan)

    with open_hostler(functions, settings.driver, _room_for(places)) as nodes:
        time.sleep(settings.warm_up)
        first = load(nodes, FUNCTIONS, warm_up, seed=1)
        launched, before = launches(nodes), _cpu_s(nodes)
        machine, began = machine_cpu_us(), time.monotonic()
        result = load(nodes, FUNCTIONS, seconds, seed=2)
        used = (machine_cpu_us() - machine) / 1e6 - result.cpu_s
        took = time.monotonic() - began  # with the last calls, after the loops have ended
        after, started = _cpu_s(nodes), launches(nodes) - launched
    # The same calls, with a container for each client.
    warm: dict[str, Any] = {**HOT, "annotations": {"hostler/min-warm": CLIENTS}}
    with open_hostler({"ideal": warm}, settings.driver, _room_for(2 * CLIENTS)) as nodes:
        singles(nodes, "ideal", dos[0], count=1)
        until_containers(nodes, "ideal", CLIENTS)
        # Long calls are few, and what they are by chance has to be the same.
        short = seconds if len(runs) > 1 else seconds / 4
        ideal = load(nodes, ["ideal"] * len(FUNCTIONS), short, seed=2)
    rate = rate_between(result.answered, 0.0, seconds)
    best = rate_between(ideal.answered, 0.0, short)
    return {
        "share_of_ideal": rate / best,
        "calls_per_s": rate,
        "calls_per_s/ideal": best,
        **{
            f"{name}/{which}": _ms(answered, percent)
            for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99))
            for which, answered in (("served", result.answered), ("ideal", ideal.answered))
        },
        "started_per_s": started / seconds,
        "started_per_s/future_known": fewest_starts(first, result, places) / seconds,
        "started_per_call": started / max(1, len(result.answered)),
        "cpus_of_machine": used / took,
        **{f"cpus/{name}": (after[name] - before[name]) / took for name in after},
        **health_of(result, seconds),
    }


def fewest_starts(first: CrowdResult, result: CrowdResult, places: int) -> int:
    """Containers that must be started in the second of two loads, however well it is chosen what
    gives way: where a container has to go, that of the function whose next call comes last
    (Belady). With one container per function, so what is needed at the same time is not in it."""
    calls = [one.ask for load in (first, result) for one in _by_begin(load)]
    next_call: list[float] = [float("inf")] * len(calls)
    seen: dict[int, int] = {}
    for number in range(len(calls) - 1, -1, -1):
        next_call[number] = seen.get(calls[number], float("inf"))
        seen[calls[number]] = number
    there: dict[int, float] = {}
    starts = 0
    for number, function in enumerate(calls):
        if function not in there:
            starts += number >= len(first.answered)
            if len(there) == places:
                del there[max(there, key=there.__getitem__)]
        there[function] = next_call[number]
    return starts


def _by_begin(load: CrowdResult) -> list[Answered]:
    return sorted(load.answered, key=lambda one: one.began)


def _cpu_s(nodes: Target) -> dict[str, float]:
    """Of the nodes, which stay; functions that have ended would be missing."""
    groups = nodes.processes()
    return {name: usage_of(groups[name]).cpu_us / 1e6 for name in ("lb", "runner")}


# --- a crowd that leaves ---

CROWD, FEW_LEFT = 64, 2
"""Clients of one function, and those that are left later."""
OTHERS, OTHERS_EVERY = 12, 2.0
"""Functions that share the runner with it later, and seconds between two calls of each."""
CROWD_PLACES = 32
SLOW: Mapping[str, Any] = {**HOT, "config": {"FNT_START": "delay=300"}}
"""Its containers take milliseconds to start."""
CROWDED, SHARED = 25.0, 20.0
"""Seconds of the crowd alone, and of the others."""


def _crowd_leaves(target: Target, settings: Settings, *, do: str) -> Metrics:
    crowded, shared = settings.scaled(CROWDED), settings.scaled(SHARED)
    others = [f"other{number}" for number in range(OTHERS)]
    with open_hostler(
        dict.fromkeys(["crowd", *others], SLOW), settings.driver, _room_for(CROWD_PLACES)
    ) as nodes:
        time.sleep(settings.warm_up)
        crowd = Ask(path=nodes.paths["crowd"], headers={"Fnt-Do": do})
        singles(nodes, "crowd", crowd.headers)
        many = Crowd(asks=[crowd], clients=[(0.0, CROWD)])
        run_crowd(CrowdPlan(address=nodes.address, crowds=[many], seconds=crowded))
        first = launches(nodes)
        few = Crowd(asks=[crowd], clients=[(0.0, FEW_LEFT)])
        asks = [Ask(path=nodes.paths[name], headers={"Fnt-Do": "sleep=20"}) for name in others]
        each = [
            Crowd(
                asks=[ask],
                arrivals=[
                    (turn + place / OTHERS) * OTHERS_EVERY
                    for turn in range(max(1, int(shared / OTHERS_EVERY)))
                ],
            )
            for place, ask in enumerate(asks)
        ]
        result = run_crowd(CrowdPlan(address=nodes.address, crowds=[few, *each], seconds=shared))
        started = launches(nodes) - first
    of_others = [one for one in result.answered if one.crowd > 0]
    return {
        "started_per_other": started / OTHERS,
        "started_per_other/ideal": 1.0,
        "containers_of_crowd": first,
        "other_p50_ms": _ms(of_others, 50),
        "other_p90_ms": _ms(of_others, 90),
        "calls_per_s": rate_between([o for o in result.answered if o.crowd == 0], 0.0, shared),
        **health_of(result, shared),
    }


# --- a machine that has something else to do ---

SPREAD_CLIENTS, SPREAD_PAUSE, SPREAD_CPU = 4, 0.1, 20
"""Clients, seconds between their calls, and milliseconds of CPU for each call: two thirds of a
core, so that one machine that is free can do it all."""
SPREAD = 8.0


def _spread(target: Target, settings: Settings) -> Metrics:
    """Two runners with a core each; none of them, the first or the second one is busy."""
    if settings.driver != "process":
        raise RunFailed("only with the process driver: containers are not bound to a runner's core")
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RunFailed("needs two cores")
    metrics: Metrics = {}
    shares = []
    for which, busy in (("free", None), ("first", 0), ("second", 1)):
        result, calls = _spread_once(settings, cores, busy)
        if busy is not None:
            shares.append(calls[busy] / sum(calls))
            metrics[f"busy_share/{which}"] = shares[-1]
        else:
            metrics["first_share/free"] = calls[0] / sum(calls)
        metrics[f"p50_ms/{which}"] = _ms(result.answered, 50)
        metrics[f"p90_ms/{which}"] = _ms(result.answered, 90)
        metrics[f"failed/{which}"] = health_of(result, settings.scaled(SPREAD))["failed"]
    return {"busy_share": sum(shares) / 2, "busy_share/ideal": 0.0, **metrics}


def _spread_once(
    settings: Settings, cores: Sequence[int], busy: int | None
) -> tuple[CrowdResult, list[float]]:
    """And the calls that each of the runners has served."""
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(
            open_hostler({"work": HOT}, settings.driver, _room_for(ROOMY), 2, cores)
        )
        if busy is not None:
            stack.enter_context(_burning(cores[busy]))
        time.sleep(settings.warm_up)
        headers = {"Fnt-Do": f"burn={SPREAD_CPU}"}
        singles(nodes, "work", headers)
        before = [_completed(one) for one in nodes.runners]
        ask = Ask(path=nodes.paths["work"], headers=headers)
        crowd = Crowd(asks=[ask], clients=[(0.0, SPREAD_CLIENTS)], pause=SPREAD_PAUSE)
        seconds = settings.scaled(SPREAD)
        result = run_crowd(CrowdPlan(address=nodes.address, crowds=[crowd], seconds=seconds))
        after = [_completed(one) for one in nodes.runners]
    return result, [new - old for new, old in zip(after, before, strict=True)]


def _completed(runner: str) -> float:
    return total(read_samples(runner), "fn_completed")


@contextlib.contextmanager
def _burning(core: int) -> Iterator[None]:
    with pinned(core):
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


SCENARIOS = (
    *(
        Scenario(
            name=f"neighbours{ending}",
            about=f"20 calls/s of 20 ms beside 40 at once of 100 ms every 3 s, room for {room}",
            measure=functools.partial(_neighbours, room=room),
            target="none",
        )
        for ending, room in (("", ROOMY), ("-tight", TIGHT))
    ),
    *(
        Scenario(
            name=f"zipf-50{ending}{f'-{places}' * (places != PLACES[0])}",
            about=f"50 functions of {', '.join(map(str, runs))} ms by Zipf's law, room for {places}"
            " containers, 8 clients with 50 ms between calls",
            measure=functools.partial(_zipf, places=places, runs=runs),
            target="none",
            only_by_name=places != PLACES[0],
        )
        for ending, runs in RUNS.items()
        for places in PLACES
    ),
    *(
        Scenario(
            name=f"crowd-leaves{ending}",
            about=f"12 functions called every 2 s, after {CROWD} clients of one {why}, room for"
            f" {CROWD_PLACES} containers",
            measure=functools.partial(_crowd_leaves, do=do),
            target="none",
        )
        for ending, do, why in (
            ("", "sleep=45", "of 45 ms"),
            ("-surplus", "sleep=40;burn=5", "that the CPUs limit"),
        )
    ),
    Scenario(
        name="spread",
        about="20 ms of CPU per call, two runners with a core each, and one core is busy",
        measure=_spread,
        target="none",
        drivers=("process",),
    ),
)
