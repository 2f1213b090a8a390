"""Settings of a pure runner's server."""

from __future__ import annotations

import attrs

from ._base import EnvConfig, setting
from ._kinds import COMMA_LIST, SECONDS, number


@attrs.frozen(kw_only=True)
class RunnerConfig(EnvConfig):
    """What a runner offers load balancers, and how it finds out that one is gone. Times are
    seconds. The variables are ours."""

    multiplex_calls: int = attrs.field(
        default=512, metadata=setting(number(high=4096), "FN_MULTIPLEX_CALLS")
    )
    """Maximum number of calls (512) that a load balancer may have at once on a stream that they
    share; 0 = such streams are not offered. A load balancer has one such stream for each
    connection."""

    runner_keepalive_interval: float = attrs.field(
        default=60.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_INTERVAL")
    )
    """Seconds (60) of silence on a connection after which a ping asks whether the load balancer's
    process still lives. Clients accept any number of pings; only servers count them."""

    runner_keepalive_timeout: float = attrs.field(
        default=20.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_TIMEOUT")
    )
    """Seconds (20) in which the load balancer must answer that ping. Otherwise the runner gives the
    connection up and cancels its calls, except acknowledged detached calls."""

    runner_vanished_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_RUNNER_VANISHED_TIMEOUT")
    )
    """Seconds (30) after which the runner notices that a host has silently vanished from the
    network. The kernel probes in whole seconds: at least 2."""

    tls_client_names: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_TLS_CLIENT_NAMES")
    )
    """Names of the load balancers that may connect (none = all that have a certificate of the
    authority). One of the names must be among the alternative names of the client's certificate. A
    common name counts only in a certificate without alternative names."""
