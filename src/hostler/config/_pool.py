"""Settings of runner pools: connections, discovery, health."""

from __future__ import annotations

import math
from typing import Any

import attrs

from hostler.errors import ConfigError

from ._addresses import DNS_SERVER
from ._base import EnvConfig, setting
from ._kinds import FLAG, SECONDS, SHARE, Kind, number


def _is_factor(value: Any) -> bool:
    number_ = isinstance(value, float | int) and not isinstance(value, bool)
    return number_ and math.isfinite(value) and (value == 0 or value > 1)


_FACTOR = Kind("a number over 1, or 0 for never", float, _is_factor)


@attrs.frozen(kw_only=True)
class PoolConfig(EnvConfig):
    """How a pool reaches, finds and judges its runners. Times are seconds. The variables are
    ours."""

    # --- connections ---

    connect_timeout: float = attrs.field(
        default=0.1, metadata=setting(SECONDS, "FN_CONNECT_TIMEOUT")
    )
    """Seconds (0.1) in which a TCP connection to a runner must be established, as in Fn."""

    vanished_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_VANISHED_TIMEOUT")
    )
    """Seconds (30) after which the load balancer notices that a host has silently vanished from the
    network, on idle and on busy connections. The kernel probes in whole seconds: at least 2."""

    keepalive_interval: float = attrs.field(
        default=310.0, metadata=setting(SECONDS, "FN_KEEPALIVE_INTERVAL")
    )
    """Seconds (310) of silence after which a ping asks whether the runner's process still lives.
    Fn's runners end a connection if pings come more often than every five minutes."""

    keepalive_timeout: float = attrs.field(
        default=20.0, metadata=setting(SECONDS, "FN_KEEPALIVE_TIMEOUT")
    )
    """Seconds (20) in which the runner must answer that ping."""

    multiplex_limit: int = attrs.field(
        default=32_768, metadata=setting(number(high=32_768), "FN_MULTIPLEX_LIMIT")
    )
    """Maximum bytes (32 768) of a call, with its whole body, that the load balancer sends on a
    stream that several calls share, if the runner offers such streams; 0 = each call has its own
    stream, as in Fn."""

    tls_reload_interval: float = attrs.field(
        default=10.0, metadata=setting(SECONDS, "FN_TLS_RELOAD_INTERVAL")
    )
    """Seconds (10) between checks of the PEM files. Changed files are used from the next connection
    on. SIGHUP checks at once."""

    # --- membership ---

    leave_grace: float = attrs.field(default=600.0, metadata=setting(SECONDS, "FN_LEAVE_GRACE"))
    """Seconds (600) that running calls get to finish when their runner leaves a pool."""

    dns_server: str = attrs.field(default="", metadata=setting(DNS_SERVER, "FN_DNS_SERVER"))
    """IP address, or ``address:port``, of the DNS server for ``dns://`` and ``srv://`` runners
    ("" = those of /etc/resolv.conf)."""

    dns_min_interval: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_DNS_MIN_INTERVAL")
    )
    """Minimum seconds (1) from one look-up of a name to the next, whatever its TTL says."""

    dns_max_interval: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_DNS_MAX_INTERVAL")
    )
    """Maximum seconds (30) from one look-up of a name to the next."""

    dns_timeout: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_DNS_TIMEOUT"))
    """Seconds (5) that one look-up may take."""

    # --- health ---

    health_watch: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_HEALTH_WATCH"))
    """Whether (yes) runners are asked to report when they stop or start to take calls
    (grpc.health.v1). Runners that can't report this are asked for their status while they are
    ejected."""

    load_watch: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_LOAD_WATCH"))
    """Whether (yes) runners are asked to report their load when it changes, so that waiting calls
    learn of room at once. Runners that can't report it, such as Fn's, are tried now and then."""

    eject_failures: int = attrs.field(
        default=3, metadata=setting(number(high=1_000_000), "FN_EJECT_FAILURES")
    )
    """Number of attempts in a row (3) that fail to reach a runner, or break off, before the runner
    is ejected; 0 = never. Refusals for lack of room never count."""

    eject_faults: int = attrs.field(
        default=20, metadata=setting(number(high=1_000_000), "FN_EJECT_FAULTS")
    )
    """Number of calls in a row (20) that a runner takes and then fails for reasons of its own,
    before the runner is ejected; 0 = never."""

    eject_latency_factor: float = attrs.field(
        default=10.0, metadata=setting(_FACTOR, "FN_EJECT_LATENCY_FACTOR")
    )
    """A runner is ejected if its calls take this many times (10) as long, outside of the function,
    as calls on the median runner; 0 = never."""

    eject_latency_quantile: float = attrs.field(
        default=0.5, metadata=setting(SHARE, "FN_EJECT_LATENCY_QUANTILE")
    )
    """Quantile (0.5) of a runner's call times that is compared."""

    eject_latency_floor: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_EJECT_LATENCY_FLOOR")
    )
    """Seconds (1) below which no runner counts as too slow."""

    eject_share: float = attrs.field(default=0.5, metadata=setting(SHARE, "FN_EJECT_SHARE"))
    """Maximum share of the runners (0.5) that may be ejected at once. With two or more runners, one
    may always be ejected, and never all."""

    eject_interval: float = attrs.field(
        default=10.0, metadata=setting(SECONDS, "FN_EJECT_INTERVAL")
    )
    """Seconds (10) that a slow or faulty runner stays ejected. If the runner was ejected just
    before, it stays ejected twice, three times and up to six times as long."""

    probe_interval: float = attrs.field(default=0.5, metadata=setting(SECONDS, "FN_PROBE_INTERVAL"))
    """Seconds (0.5) between attempts to reach a runner that can't be reached. At first the attempts
    are ten times as frequent."""

    slow_start: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_SLOW_START"))
    """Seconds (5) in which a runner that is back gets a growing share of its calls."""

    def _check_together(self) -> None:
        if self.dns_max_interval < self.dns_min_interval:
            raise ConfigError(
                f"FN_DNS_MAX_INTERVAL={self.dns_max_interval!r} is under "
                f"FN_DNS_MIN_INTERVAL={self.dns_min_interval!r}"
            )
