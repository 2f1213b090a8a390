"""The state that one process reports, and the state of the node from all its processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from statistics import median
from typing import TypeVar

import msgspec

from .activity import RECENT_CALLS
from .documents import CallRow, ContainerStates, FnKnown, FnRow, Listed, NodeLoad, RunnerRow, State
from .seconds import CountedSecond, Second

MAX_ROWS = 300
"""Functions in one document."""
_LISTED: tuple[Listed, ...] = ("stale", "partial", "complete", "none")
"""Worst first: the node is as its worst process."""
_HEALTH = ("in use", "returning", "refuses", "ejected", "unreachable")
T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class StateCursor(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader already has."""

    second: int = 0
    seen: Mapping[int, int] = msgspec.field(default_factory=dict[int, int])
    """The number of the last call of each process, by process id."""


class ProcessFnState(FnKnown, frozen=True, gc=False, kw_only=True):
    """A function as one process reports it."""

    samples: Sequence[int]
    """Durations of the last calls in nanoseconds."""


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a `State` that one process knows."""

    process: int
    node: str
    ready: bool
    trouble: str
    started: float
    calls: int
    failed: int
    load: NodeLoad | None
    seconds: Sequence[CountedSecond] | None
    recent: Sequence[CallRow] | None
    functions: Sequence[ProcessFnState]
    functions_total: int
    listing: Listed
    runners: Sequence[RunnerRow] | None


def state_of(
    shares: Sequence[ProcessState], cursor: StateCursor, now: float
) -> tuple[State, StateCursor]:
    """The state of the node at time ``now`` (seconds since 1970) from the ``shares`` of its
    processes, at least one; and the reader's next cursor."""
    seconds = _all(share.seconds for share in shares)
    joined = None if seconds is None else [Second.of(each) for each in _grouped(seconds, "at")]
    recent = _all(share.recent for share in shares)
    functions = _all(share.functions for share in shares) or ()
    rows = [_function(each) for each in _grouped(functions, "id")]
    rows.sort(key=lambda row: row.last or 0.0, reverse=True)
    runners = _all(share.runners for share in shares)
    if joined is not None:
        joined.sort(key=lambda second: second.at)
    if recent is not None:
        recent.sort(key=lambda row: row.at)
    ready = any(share.ready for share in shares)
    state = State(
        node=shares[0].node,
        version=version("hostler"),
        ready=ready,
        trouble="" if ready else next(filter(None, (share.trouble for share in shares)), ""),
        started=min(share.started for share in shares),
        now=now,
        calls=sum(share.calls for share in shares),
        failed=sum(share.failed for share in shares),
        load=_load([share.load for share in shares if share.load is not None]),
        seconds=joined,
        recent=None if recent is None else recent[-RECENT_CALLS:],
        functions=rows[:MAX_ROWS],
        functions_total=max(len(rows), *(share.functions_total for share in shares)),
        listing=min((share.listing for share in shares), key=_LISTED.index),
        runners=None if runners is None else [*map(_runner, _grouped(runners, "address"))],
    )
    return state, StateCursor(
        second=joined[-1].at if joined else cursor.second,
        seen={**cursor.seen, **{share.process: share.calls for share in shares}},
    )


def _all(told: Iterable[Sequence[T] | None]) -> list[T] | None:
    """The rows of all processes; ``None`` if none has such rows."""
    known = [rows for rows in told if rows is not None]
    return [*chain(*known)] if known else None


def _grouped(rows: Iterable[T], key: str) -> Iterable[list[T]]:
    """Groups of rows with the same ``key``, in the order of each group's first row."""
    groups: dict[object, list[T]] = {}
    for row in rows:
        groups.setdefault(getattr(row, key), []).append(row)
    return groups.values()


def _load(loads: Sequence[NodeLoad]) -> NodeLoad | None:
    return _sum(loads, NodeLoad) if loads else None


def _sum(told: Sequence[S], kind: type[S]) -> S:
    """Sum each field over the processes that know it; ``None`` if no process does."""
    sums: dict[str, int | None] = {}
    for name in kind.__struct_fields__:
        known = [value for each in told if (value := getattr(each, name)) is not None]
        sums[name] = sum(known) if known else None
    return kind(**sums)


def _function(shares: Sequence[ProcessFnState]) -> FnRow:
    latest = max(shares, key=lambda share: share.last or 0.0)
    named = next((share for share in shares if share.name), latest)
    containers = [share.containers for share in shares if share.containers is not None]
    samples = [sample for share in shares for sample in share.samples]
    return FnRow(
        id=latest.id,
        app=named.app,
        name=named.name,
        image=latest.image,
        calls=sum(share.calls for share in shares),
        failed=sum(share.failed for share in shares),
        median=round(median(samples) / 1e6, 3) if samples else None,
        last=latest.last,
        containers=_sum(containers, ContainerStates) if containers else None,
    )


def _runner(rows: Sequence[RunnerRow]) -> RunnerRow:
    """Health and load as reported by the process with the worst opinion of the runner."""
    worst = max(rows, key=lambda row: _HEALTH.index(row.state))
    return msgspec.structs.replace(worst, calls=sum(row.calls for row in rows))
