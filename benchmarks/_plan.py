"""What the load generators are told and what they answer: one JSON line each way."""

from __future__ import annotations

import msgspec


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop: each connection sends its next request when it has the whole answer."""

    address: str
    """``host:port`` or ``unix:/path``."""
    path: str
    others: tuple[str, ...] = ()
    """Paths that take turns with ``path``, from one request to the next of all connections."""
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


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of call."""

    path: str
    headers: dict[str, str] = {}
    body_size: int = 0


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Clients of one kind. Those of ``clients`` are in a loop; each of ``arrivals`` makes one call.

    Times are in seconds from the start.
    """

    asks: list[Ask]
    weights: list[float] = []
    """How often each of ``asks``; the first one only if there are none."""
    clients: list[tuple[float, int]] = []
    """How many in a loop, from when on."""
    pause: float = 0.0
    """Between an answer and the same client's next call."""
    arrivals: list[float] = []
    """When those come that make one call each, on a connection of their own."""
    patience: list[float] = []
    """How long each of them waits before it leaves; without, for ever."""


class CrowdPlan(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    crowds: list[Crowd]
    seconds: float
    """Then all loops end."""
    limit: float = 60.0
    """Seconds after that in which the last ones must be answered."""
    seed: int = 1


LEFT = 0
"""The status of a call whose client left."""
BROKEN = -1
"""The status of a call that had no answer."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """One call: when it began, after the start, and how long it took, in seconds."""

    crowd: int
    ask: int
    began: float
    took: float
    status: int
    retry_after: bool
    """Whether a 503 said when to come again."""

    @property
    def ended(self) -> float:
        return self.began + self.took


class CrowdResult(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of their ends."""

    started_at: float
    """By `time.monotonic`, which is the same for all processes."""
    answered: list[Answered]
    cpu_s: float
    """Of the generator itself."""
    late_p99_s: float
    late_max_s: float
    """How late the generator was with what had a time."""
    first_error: str = ""


BEGIN = b"begin\n"
END = b"end\n"
"""Lines that mark the measured time, so that others can read their clocks then."""
