"""What an embedding program adds to a pure runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs

from ..protocol import LogChannel

HealthChecker = Callable[[], Awaitable[Mapping[str, str]]]
"""Its map is the ``customStatus`` of a status. Raising marks the status as failed, with the code
and the text of the exception; the status image is not run then."""
ConfigHandler = Callable[[Mapping[str, str]], Awaitable[None]]
"""Takes what ``ConfigureRunner`` brings."""
LogStreamer = Callable[[LogChannel], Awaitable[None]]
"""Answers one ``StreamLogs`` stream."""


@attrs.frozen(kw_only=True)
class Hooks:
    """What an embedding program adds to a pure runner; ``None`` = nothing.

    ``stream_logs`` replaces the built-in streamer. ``kdumps_on_disk`` is asked for each status;
    it must not block.
    """

    health_checker: HealthChecker | None = None
    configure: ConfigHandler | None = None
    stream_logs: LogStreamer | None = None
    kdumps_on_disk: Callable[[], int] | None = None


@attrs.frozen(kw_only=True)
class StatusChecks:
    """What a runner's status consists of beside its counters; empty = none.

    ``image`` is run as a function with the payload as its body; no caller may name it. ``barrier``
    is the path of a file without which the network counts as disabled: the status reports that,
    and the status image is run without a network.
    """

    image: str = ""
    barrier: str = ""
