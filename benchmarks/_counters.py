"""What nodes say of themselves at ``/metrics``: counters, and containers over time."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs

from ._measure import RunFailed
from ._target import Target

Samples = Mapping[str, float]
"""By name and labels, as they are written there."""
LIVING = ("idle", "paused", "busy")
"""States of containers that are ready."""
_SAMPLE = re.compile(r"^(fn_[^ ]+?(?:\{.*\})?) ([^ ]+)$", re.MULTILINE)


def read_samples(address: str) -> Samples:
    """Blocks. hostler's own ones of a node; raises ``OSError`` if it does not answer."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in _SAMPLE.findall(text)}


def total(samples: Samples, name: str, function: str = "") -> float:
    """Of all label sets of ``name``, or of those of one function, by its id."""
    label = f'fn_id="{function}"'
    return sum(
        value
        for key, value in samples.items()
        if key.partition("{")[0] == name and label * bool(function) in key
    )


def function_id(target: Target, name: str) -> str:
    return target.paths[name].rpartition("/")[2]


def launches(target: Target) -> float:
    """Containers that all runners together have started so far."""
    return sum(total(read_samples(one), "fn_container_launches") for one in target.runners)


def containers(samples: Samples, function: str = "", states: Sequence[str] = LIVING) -> float:
    return sum(total(samples, f"fn_container_{state}_total", function) for state in states)


def until_containers(target: Target, name: str, count: int, limit: float = 60.0) -> None:
    """Blocks until function ``name`` has ``count`` containers that are ready. Raises `RunFailed`
    if it has not in time."""
    end, function = time.monotonic() + limit, function_id(target, name)
    while (found := sum(containers(read_samples(one), function) for one in target.runners)) < count:
        if time.monotonic() > end:
            raise RunFailed(f"{name} has {found:.0f} containers, not {count}, after {limit} s")
        time.sleep(0.1)


@attrs.frozen
class Moment:
    """At ``at``, by `time.monotonic`: containers that are ready, those of them that are busy, and
    all that were launched so far."""

    at: float
    ready: float
    busy: float
    launched: float


@contextmanager
def watched(target: Target, every: float) -> Iterator[list[Moment]]:
    """What the runners have, each ``every`` seconds. A look costs a runner some milliseconds."""
    moments: list[Moment] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            at = time.monotonic()
            try:
                found = [read_samples(one) for one in target.runners]
            except OSError:  # it has too much to do, which the figures of the clients show
                continue
            moments.append(
                Moment(
                    at,
                    sum(containers(one) for one in found),
                    sum(containers(one, states=("busy",)) for one in found),
                    sum(total(one, "fn_container_launches") for one in found),
                )
            )

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield moments
    finally:
        ended.set()
        thread.join()
