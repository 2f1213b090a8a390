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
    """Calls (512) that a load balancer may have at once on a stream that they share, of which it
    has one for each connection; 0 = such streams are not offered."""

    runner_keepalive_interval: float = attrs.field(
        default=60.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_INTERVAL")
    )
    """Seconds (60) of silence on a connection after which a ping asks whether the process behind
    the host still lives. Clients bear any number of them; only servers count pings."""

    runner_keepalive_timeout: float = attrs.field(
        default=20.0, metadata=setting(SECONDS, "FN_RUNNER_KEEPALIVE_TIMEOUT")
    )
    """Seconds (20) in which that ping must be answered; else the connection is given up, and its
    calls are cancelled, but for acknowledged detached ones."""

    runner_vanished_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_RUNNER_VANISHED_TIMEOUT")
    )
    """Seconds (30) after which a host that is silently gone from the network is noticed. The kernel
    probes in whole seconds: at least 2."""

    tls_client_names: tuple[str, ...] = attrs.field(
        default=(), metadata=setting(COMMA_LIST, "FN_TLS_CLIENT_NAMES")
    )
    """Names of the load balancers that may come (none = all that have a certificate of the
    authority). One must be among the alternative names of the client's certificate; a common name
    counts only in a certificate without those."""
