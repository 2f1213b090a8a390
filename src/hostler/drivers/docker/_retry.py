"""When a failed pull is tried again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import attrs

from ...errors import ConfigError

FOREVER = 2**64 - 1
"""As ``max_retries``: no limit (Fn's sentinel)."""

RetryChecker = Callable[[Exception], tuple[bool, str]]
"""Gets the error of one try; returns whether to try again and a short reason for the logs."""


def never_retry(error: Exception) -> tuple[bool, str]:
    """The default: the first error is final."""
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
