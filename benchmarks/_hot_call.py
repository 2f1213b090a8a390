"""What one hot call crosses on its way through a load balancer and a runner, and what of it waits
while its function works: real processes, process driver, 1 KiB."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ._answers import Answer, BadAnswer
from ._target import Target, open_hostler
from ._traced import BEGIN, END, LIMIT, REST, ask
from .load import dial, request_bytes

NODES = ("lb", "runner")
BODY = bytes(1024)
WARM_UP = 200
"""Calls before anything is counted."""
TRACES = 15
"""Calls that are traced one by one. Medians count: something else may happen meanwhile."""
CLIENTS = 8
CALLS = 20
"""Of each client, where several call at once."""
BURSTS = 3
"""Times that they do: how many answers come together, which is cheaper, is never quite the same."""
REST_TIME = 0.05
"""Seconds after an answer in which the nodes come to rest."""


@attrs.frozen
class HotCall:
    """By node: ``lb`` and ``runner``."""

    modules: Mapping[str, Mapping[str, str]]
    """Those that were entered, in this order, and the function that was first."""
    calls: Mapping[str, tuple[float, float]]
    """Of Python functions and of C's, one client; a coroutine that goes on counts as a call."""
    calls_of_many: Mapping[str, tuple[float, float]]
    """The same with several clients at once, per call."""
    rest: Mapping[str, list[list[str]]]
    """Of each task that waits with the call: the functions that wait for each other, the outermost
    first; hostler's have a colon."""

    @property
    def crossed(self) -> set[str]:
        """The modules of both nodes."""
        return {name for node in NODES for name in self.modules[node]}

    def frames(self, node: str) -> int:
        """Hostler's coroutine frames that wait with the call."""
        return sum(":" in function for chain in self.rest[node] for function in chain)


class _Nodes:
    def __init__(self, folder: Path, target: Target) -> None:
        self._folder = folder
        self._target = target
        processes = target.processes()
        self._pids = {node: processes[node][0] for node in NODES}

    def client(self) -> _Client:
        return _Client(self._target)

    def ask(self, number: Any) -> dict[str, Any]:
        return {node: ask(self._folder, pid, number) for node, pid in self._pids.items()}


class _Client:
    """A connection that is kept. Blocks."""

    def __init__(self, target: Target) -> None:
        self._path = target.paths["echo"]
        self._connection = dial(target.address)
        self._connection.settimeout(LIMIT)
        self._answer = Answer()

    def call(self) -> None:
        self.begin()
        self.end()

    def begin(self, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.sendall(request_bytes(self._path, named, BODY))

    def end(self) -> None:
        self._answer.begin()
        while not (complete := self._answer.receive(self._connection)):
            if complete is None:
                raise BadAnswer("the connection ended unanswered")
        if self._answer.status != 200:
            raise BadAnswer(f"status {self._answer.status}")


@functools.cache
def trace_hot_call() -> HotCall:
    """Starts the nodes, and ends them. Blocks for some seconds. Raises `NotReady`, `BadAnswer` and
    ``TimeoutError``."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hot-call.")))
        target = stack.enter_context(
            open_hostler(
                {"echo": {"memory": 32, "idle_timeout": 300}},
                "process",
                {"FN_LB_WORKERS": "1", "FN_RUNNER_WORKERS": "1"},
                program=(sys.executable, "-m", "benchmarks._traced", str(folder)),
            )
        )
        nodes = _Nodes(folder, target)
        client = nodes.client()
        for _ in range(WARM_UP):
            client.call()
        nothing = [_traced(nodes, None) for _ in range(TRACES)]
        traces = [_traced(nodes, client) for _ in range(TRACES)]
        rest = _at_rest(nodes, client, folder / "go")
        return HotCall(
            modules={node: _modules([one[node] for one in traces]) for node in NODES},
            calls={
                node: (
                    _median(traces, node, "python") - _median(nothing, node, "python"),
                    _median(traces, node, "c") - _median(nothing, node, "c"),
                )
                for node in NODES
            },
            calls_of_many=_of_many(nodes),
            rest=rest,
        )


def _traced(nodes: _Nodes, client: _Client | None) -> dict[str, Any]:
    nodes.ask(BEGIN)
    if client:
        client.call()
    time.sleep(REST_TIME)
    return nodes.ask(END)


def _median(traces: list[dict[str, Any]], node: str, kind: str) -> float:
    return float(statistics.median(one[node][kind] for one in traces))


def _modules(traces: list[dict[str, Any]]) -> dict[str, str]:
    """Those of most traces, as they came in the one that has the fewest others."""
    counts = Counter(itertools.chain.from_iterable(one["modules"] for one in traces))
    usual = {name for name, count in counts.items() if count > len(traces) / 2}
    best = min(traces, key=lambda one: len(usual.symmetric_difference(one["modules"])))
    return {name: function for name, function in best["modules"].items() if name in usual}


def _of_many(nodes: _Nodes) -> dict[str, tuple[float, float]]:
    clients = [nodes.client() for _ in range(CLIENTS)]

    def calls(client: _Client) -> None:
        for _ in range(CALLS):
            client.call()

    def all_at_once() -> None:
        threads = [threading.Thread(target=calls, args=[one]) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    bursts = []
    for _ in range(BURSTS + 1):  # the first starts containers
        nodes.ask(BEGIN)
        all_at_once()
        bursts.append(nodes.ask(END))
    total = CLIENTS * CALLS
    return {
        node: (
            _median(bursts[1:], node, "python") / total,
            _median(bursts[1:], node, "c") / total,
        )
        for node in NODES
    }


def _at_rest(nodes: _Nodes, client: _Client, go: Path) -> dict[str, list[list[str]]]:
    """What waits while the function does: tasks that are new, or wait elsewhere than before."""
    time.sleep(REST_TIME)
    before = nodes.ask(REST)
    client.begin(Fnt_Do=f"until={go}")
    try:
        return next(
            {node: _others(before[node], first[node]) for node in NODES}
            for first, second in itertools.pairwise(_rests(nodes))
            if first == second and all(first[node] != before[node] for node in NODES)
        )
    finally:
        go.touch()
        client.end()


def _rests(nodes: _Nodes) -> Iterator[dict[str, Any]]:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        time.sleep(REST_TIME)
        yield nodes.ask(REST)
    raise TimeoutError("the nodes do not come to rest")


def _others(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[list[str]]:
    return [chain for task, chain in after.items() if before.get(task) != chain]
