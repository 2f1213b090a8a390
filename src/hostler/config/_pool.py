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
    """Seconds (0.1) in which a TCP connection to a runner must stand; as in Fn."""

    vanished_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_VANISHED_TIMEOUT")
    )
    """Seconds (30) after which a host that is silently gone from the network is noticed, on idle
    connections and on busy ones. The kernel probes in whole seconds: at least 2."""

    keepalive_interval: float = attrs.field(
        default=310.0, metadata=setting(SECONDS, "FN_KEEPALIVE_INTERVAL")
    )
    """Seconds (310) of silence after which a ping asks whether the process behind the host still
    lives. Fn's runners end connections on which pings come more often than every five minutes."""

    keepalive_timeout: float = attrs.field(
        default=20.0, metadata=setting(SECONDS, "FN_KEEPALIVE_TIMEOUT")
    )
    """Seconds (20) in which that ping must be answered."""

    multiplex_limit: int = attrs.field(
        default=32_768, metadata=setting(number(high=32_768), "FN_MULTIPLEX_LIMIT")
    )
    """Bytes (32 768) up to which a call, with its whole body, is sent on a stream that it shares
    with others, if the runner announces that it takes such; 0 = each call has its own stream, as in
    Fn."""

    tls_reload_interval: float = attrs.field(
        default=10.0, metadata=setting(SECONDS, "FN_TLS_RELOAD_INTERVAL")
    )
    """Seconds (10) between looks at the PEM files; changed ones are used from the next connection
    on. SIGHUP looks at once."""

    # --- membership ---

    leave_grace: float = attrs.field(default=600.0, metadata=setting(SECONDS, "FN_LEAVE_GRACE"))
    """Seconds (600) that the calls of a runner which leaves a pool get to finish."""

    dns_server: str = attrs.field(default="", metadata=setting(DNS_SERVER, "FN_DNS_SERVER"))
    """IP address, or ``address:port``, of the DNS server for ``dns://`` and ``srv://`` runners
    ("" = those of /etc/resolv.conf)."""

    dns_min_interval: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_DNS_MIN_INTERVAL")
    )
    """Seconds (1) from one look-up of a name to the next at least, whatever its TTL says."""

    dns_max_interval: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_DNS_MAX_INTERVAL")
    )
    """Seconds (30) from one look-up to the next at most."""

    dns_timeout: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_DNS_TIMEOUT"))
    """Seconds (5) that one look-up may take."""

    # --- health ---

    health_watch: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_HEALTH_WATCH"))
    """Whether (yes) runners are asked to tell when they stop or start to take calls
    (grpc.health.v1); those that can't are asked for their status while they are ejected."""

    load_watch: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_LOAD_WATCH"))
    """Whether (yes) runners are asked to tell of their load when it changes, so that waiting calls
    learn of room at once; those that can't, as Fn's, are tried now and then."""

    eject_failures: int = attrs.field(
        default=3, metadata=setting(number(high=1_000_000), "FN_EJECT_FAILURES")
    )
    """Attempts in a row (3) that failed to reach a runner, or broke off, before it is ejected,
    0 = never. Refusals for lack of room never count."""

    eject_faults: int = attrs.field(
        default=20, metadata=setting(number(high=1_000_000), "FN_EJECT_FAULTS")
    )
    """Calls in a row (20) that a runner took and then failed for reasons of its own, before it is
    ejected, 0 = never."""

    eject_latency_factor: float = attrs.field(
        default=10.0, metadata=setting(_FACTOR, "FN_EJECT_LATENCY_FACTOR")
    )
    """A runner is ejected if its calls take this many times (10) as long outside of the function
    as they take on the median runner, 0 = never."""

    eject_latency_quantile: float = attrs.field(
        default=0.5, metadata=setting(SHARE, "FN_EJECT_LATENCY_QUANTILE")
    )
    """The quantile (0.5) of a runner's calls that is compared."""

    eject_latency_floor: float = attrs.field(
        default=1.0, metadata=setting(SECONDS, "FN_EJECT_LATENCY_FLOOR")
    )
    """Seconds (1) under which no runner is too slow."""

    eject_share: float = attrs.field(default=0.5, metadata=setting(SHARE, "FN_EJECT_SHARE"))
    """Share of the runners (0.5) that may be ejected at once; with two or more it may always be
    one, and never all."""

    eject_interval: float = attrs.field(
        default=10.0, metadata=setting(SECONDS, "FN_EJECT_INTERVAL")
    )
    """Seconds (10) that a runner stays ejected which was slow, or faulty; twice, three times
    as long if it has just been so, up to six times."""

    probe_interval: float = attrs.field(default=0.5, metadata=setting(SECONDS, "FN_PROBE_INTERVAL"))
    """Seconds (0.5) between attempts to reach a runner that can't be reached; ten times as
    often at first."""

    slow_start: float = attrs.field(default=5.0, metadata=setting(SECONDS, "FN_SLOW_START"))
    """Seconds (5) in which a runner that is back gets a growing share of its calls."""

    def _check_together(self) -> None:
        if self.dns_max_interval < self.dns_min_interval:
            raise ConfigError(
                f"FN_DNS_MAX_INTERVAL={self.dns_max_interval!r} is under "
                f"FN_DNS_MIN_INTERVAL={self.dns_min_interval!r}"
            )
