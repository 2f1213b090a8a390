"""What the load generator is told and what it answers: one JSON line each way."""

from __future__ import annotations

import msgspec


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop: each connection sends its next request when it has the whole answer."""

    address: str
    """``host:port`` or ``unix:/path``."""
    path: str
    connections: int
    body_size: int
    headers: dict[str, str] = {}
    answer_size: int | None = None
    """Bytes expected in an answer; ``None`` = the answer must equal the request's body."""
    status: int = 200
    any_answer: bool = False
    """Only the status is checked."""
    warm_up: float
    """Seconds before the measurement, on the same connections."""
    seconds: float


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Of the measured time only. Latencies in microseconds, exact, not from a histogram."""

    requests: int
    seconds: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    cpu_us: float
    """CPU time of the load generator itself."""
    reconnects: int
    """Times a server closed a connection after an answer, as it may."""
    errors: int
    first_error: str = ""


BEGIN = b"begin\n"
END = b"end\n"
"""Lines that mark the measured time, so that others can read their clocks then."""
