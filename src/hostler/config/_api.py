"""Settings of those who ask the API."""

from __future__ import annotations

import attrs

from ._base import EnvConfig, setting
from ._kinds import SECONDS, VISIBLE, number


@attrs.frozen(kw_only=True)
class ApiConfig(EnvConfig):
    """How apps, functions and triggers are looked up for calls. Times are seconds. Fn has the
    first two times for code only; their variables are ours."""

    token: str = attrs.field(default="", repr=False, metadata=setting(VISIBLE, "FN_TOKEN"))
    """Token that the node or client sends to the API, as Fn's client does ("" = none, but a load
    balancer then sends the first token of ``FN_API_TOKEN``)."""

    api_timeout: float = attrs.field(default=60.0, metadata=setting(SECONDS, "FN_API_TIMEOUT"))
    """Seconds (60) that a request to the API may take, including all its attempts."""

    lookup_ttl: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_LOOKUP_TTL"))
    """Seconds (5) for which the node uses a looked-up app, function or trigger without asking the
    API again."""

    lookup_max_stale: float = attrs.field(
        default=600.0, metadata=setting(SECONDS, "FN_LOOKUP_MAX_STALE")
    )
    """Seconds (600) for which the node goes on using it while look-ups fail. Ours."""

    lookup_missing_ttl: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_LOOKUP_MISSING_TTL")
    )
    """Seconds (1) for which the node does not ask again for something that does not exist. Ours."""

    lookup_size: int = attrs.field(
        default=10_000, metadata=setting(number(low=1), "FN_LOOKUP_SIZE")
    )
    """Number of apps, functions and triggers (10 000 of each) that the node remembers. Ours."""
