"""When a failed pull is tried again, and after how long."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import attrs

from ...config import AgentConfig
from ...errors import ConfigError
from ._errors import EngineError, EngineTimeout, EngineUnreachable

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
FOREVER = 2**64 - 1
"""As ``max_retries``: no limit (Fn's sentinel)."""

RetryChecker = Callable[[Exception], tuple[bool, str]]
"""Gets the error of one try; returns whether to try again and a short reason for the logs."""


_TRANSIENT: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("too many requests", re.compile(r"toomanyrequests|429 too many requests")),
    (
        "registry error",
        re.compile(
            r"(unexpected http status|parsing http|status code)\D{0,10}5\d\d|^unavailable: "
        ),
    ),
    (
        "connection",
        re.compile(
            r"connection (refused|reset)|broken pipe|\beof$|network is unreachable|no route to host"
            r"|i/o timeout|handshake timeout|client\.timeout exceeded|awaiting headers"
            r"|server misbehaving|temporary failure in name resolution"
        ),
    ),
)
"""Reasons, and what the engine's text looks like. It passes on what the registry or the network
said, nearly always with status 500, so that the text is all there is to tell them apart."""


def transient_trouble(error: Exception) -> tuple[bool, str]:
    """The default `RetryChecker`: what a while may mend.

    Tried again: the registry has too many requests (429) or an error of its own (5xx), can't be
    connected to, or breaks or stalls the connection; the engine itself is gone. Final is all
    else: a missing image, missing rights, an unknown host, a certificate, a full disk, an answer
    that makes no sense, and an engine that was silent for the whole limit of the call.
    """
    if isinstance(error, EngineUnreachable):
        return True, "engine"
    if not isinstance(error, EngineError) or isinstance(error, EngineTimeout):
        return False, ""
    if error.status == _TOO_MANY_REQUESTS:
        return True, "too many requests"
    if error.status is not None and error.status < _SERVER_ERROR:
        return False, ""
    text = error.message.strip().lower()
    for reason, pattern in _TRANSIENT:
        if pattern.search(text):
            return True, reason
    return False, ""


@attrs.frozen(kw_only=True)
class Backoff:
    """Delays between tries, with Fn's numbers and jitter. Milliseconds.

    The k-th delay (k = 1, 2, ...) is ``min_delay_msec`` plus a random part below
    ``(2**k - 1) * interval_msec``, a part that is capped at ``max_delay_msec - min_delay_msec``
    unless ``max_delay_msec`` is 0.
    """

    max_retries: int = 0
    interval_msec: int = 1000
    max_delay_msec: int = 0
    min_delay_msec: int = 0

    def __attrs_post_init__(self) -> None:
        if min(self.max_retries, self.max_delay_msec, self.min_delay_msec) < 0:
            raise ConfigError(f"a backoff has no negative numbers: {self}")
        if self.max_retries and self.interval_msec < 1:
            raise ConfigError(f"interval_msec of a backoff must be at least 1: {self}")
        if self.max_delay_msec and self.min_delay_msec > self.max_delay_msec:
            raise ConfigError(f"min_delay_msec is above max_delay_msec: {self}")

    def delays(self, rand: Callable[[], float] = random.random) -> Iterator[float]:
        """The delays in seconds, as many as there are retries. ``rand`` is uniform in [0, 1)."""
        retry = 0
        while self.max_retries == FOREVER or retry < self.max_retries:
            retry += 1
            # From 2**63 on the exact number makes no difference, only long integers.
            spread = (2 ** min(retry, 63) - 1) * self.interval_msec
            if self.max_delay_msec:
                spread = min(spread, self.max_delay_msec - self.min_delay_msec)
            yield (self.min_delay_msec + rand() * spread) / 1000


def pull_backoff(config: AgentConfig) -> Backoff:
    """The delays that the settings ask for."""
    return Backoff(
        max_retries=config.image_pull_retries,
        interval_msec=config.image_pull_retry_interval_msecs,
        max_delay_msec=config.image_pull_retry_max_delay_msecs,
    )
