"""A function that writes a line every 200 ms: when its lines are at the HTTP client.

Once with the first line at once, and once with it 200 ms after the request, as from a program that
works for as long on each of its lines.
"""

from __future__ import annotations

import statistics
import time

import attrs

from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target
from ..load import dial

LINES = 5
PERIOD = 0.2
"""Seconds between two lines."""
WRITES = f"lines={LINES};every={PERIOD * 1e3:.0f};framing=chunked"
PATIENCE = 10.0


@attrs.define
class Arrivals:
    """An answer, and when its lines came: seconds after the request was sent."""

    data: bytes = b""
    at: list[float] = attrs.Factory(list)

    def add(self, piece: bytes, now: float) -> None:
        self.data += piece
        self.at += [now] * (self.data.count(b"\nline ") - len(self.at))

    @property
    def over(self) -> bool:
        return self.data.endswith(b"\r\n0\r\n\r\n")

    def most_late(self, first: float) -> float:
        """By how much a line came after it was written, at most, if the function wrote the first
        one ``first`` seconds after the request."""
        return max(at - first - number * PERIOD for number, at in enumerate(self.at))


def ask(target: Target, do: str) -> Arrivals:
    """One call on a connection of its own. Raises `RunFailed` for a wrong answer."""
    arrivals = Arrivals()
    request = f"POST {target.paths['echo']} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
    with dial(target.address) as connection:
        connection.settimeout(PATIENCE)
        begin = time.perf_counter()
        connection.sendall(f"{request}Fnt-Do: {do}\r\n\r\n".encode())
        while not arrivals.over:
            piece = connection.recv(1 << 16)
            if not piece:
                raise RunFailed(f"the answer ended early: {arrivals.data[:200]!r}")
            arrivals.add(piece, time.perf_counter() - begin)
    if not arrivals.data.startswith(b"HTTP/1.1 200 ") or len(arrivals.at) != LINES:
        raise RunFailed(f"not {LINES} lines: {arrivals.data[:200]!r}")
    return arrivals


def _measure(target: Target, settings: Settings) -> Metrics:
    ask(target, WRITES)  # the cold one
    pairs = max(3, round(settings.seconds / (2 * LINES * PERIOD)))
    at_once, late = [], []
    for _ in range(pairs):
        at_once.append(ask(target, WRITES))
        late.append(ask(target, f"sleep={PERIOD * 1e3:.0f};{WRITES}"))
    return {
        "first_byte_ms": 1e3 * statistics.median(one.at[0] for one in at_once),
        "first_byte_max_ms": 1e3 * max(one.at[0] for one in at_once),
        "first_byte_after_200_ms_of_work_ms": 1e3 * statistics.median(one.at[0] for one in late),
        "first_byte_after_200_ms_of_work_max_ms": 1e3 * max(one.at[0] for one in late),
        "line_late_max_ms": 1e3
        * max(
            *(one.most_late(0) for one in at_once),
            *(one.most_late(PERIOD) for one in late),
        ),
    }


SCENARIOS = (
    Scenario(
        name="first-byte",
        about="a line every 200 ms through LB and runner: when the lines are at the client",
        measure=_measure,
        functions={"echo": {"memory": 32, "idle_timeout": 300}},
    ),
)
