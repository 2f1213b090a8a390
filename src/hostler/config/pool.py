"""Settings of a load balancer: agent, placers, runner pools."""

from __future__ import annotations

import math

import attrs

from ..errors import ConfigError
from .addresses import DNS_SERVER
from .base import (
    FLAG,
    MILLISECONDS,
    SECONDS,
    SHARE,
    EnvConfig,
    SettingType,
    is_number,
    number,
    setting,
)

_FACTOR = SettingType(
    "a number over 1, or 0 for never",
    float,
    lambda value: is_number(value) and (value == 0 or 1 < value < math.inf),
)


@attrs.frozen(kw_only=True)
class PoolConfig(EnvConfig):
    """How a pool reaches, finds and judges its runners. Times are seconds. The variables are
    ours."""

    # --- connections ---

    connect_timeout: float = setting(SECONDS, 0.1)
    """Seconds in which a TCP connection to a runner must be established, as in Fn."""

    vanished_timeout: float = setting(SECONDS, 30.0)
    """Seconds after which the load balancer notices that a host has silently vanished from the
    network, on idle and on busy connections. The kernel probes in whole seconds: at least 2."""

    keepalive_interval: float = setting(SECONDS, 310.0)
    """Seconds of silence after which a ping asks whether the runner's process still lives. Fn's
    runners end a connection if pings come more often than every five minutes."""

    keepalive_timeout: float = setting(SECONDS, 20.0)
    """Seconds in which the runner must answer that ping."""

    multiplex_limit: int = setting(number(high=32_768), 32_768)
    """Maximum bytes of a call, with its whole body, that the load balancer sends on a stream that
    several calls share, if the runner offers such streams; 0 = each call has its own stream, as in
    Fn."""

    tls_reload_interval: float = setting(SECONDS, 10.0)
    """Seconds between checks of the PEM files. Changed files are used from the next connection on.
    SIGHUP checks at once."""

    # --- membership ---

    leave_grace: float = setting(SECONDS, 600.0)
    """Seconds that running calls get to finish when their runner leaves a pool."""

    dns_server: str = setting(DNS_SERVER, "")
    """IP address, or ``address:port``, of the DNS server for ``dns://`` and ``srv://`` runners
    (none = those of /etc/resolv.conf)."""

    dns_min_interval: float = setting(SECONDS, 1.0)
    """Minimum seconds from one look-up of a name to the next, whatever its TTL says."""

    dns_max_interval: float = setting(SECONDS, 30.0)
    """Maximum seconds from one look-up of a name to the next."""

    dns_timeout: float = setting(SECONDS, 5.0)
    """Seconds that one look-up may take."""

    # --- health ---

    health_watch: bool = setting(FLAG, True)
    """Whether runners are asked to report when they stop or start to take calls (grpc.health.v1).
    Runners that can't report this are asked for their status while they are ejected."""

    load_watch: bool = setting(FLAG, True)
    """Whether runners are asked to report their load when it changes, so that waiting calls learn
    of room at once. Runners that can't report it, such as Fn's, are tried now and then."""

    eject_failures: int = setting(number(high=1_000_000), 3)
    """Number of attempts in a row that fail to reach a runner, or break off, before the runner is
    ejected; 0 = never. Refusals for lack of room never count."""

    eject_faults: int = setting(number(high=1_000_000), 20)
    """Number of calls in a row that a runner takes and then fails for reasons of its own, before
    the runner is ejected; 0 = never."""

    eject_latency_factor: float = setting(_FACTOR, 10.0)
    """A runner is ejected if its calls take this many times as long, outside of the function, as
    calls on the median runner; 0 = never."""

    eject_latency_quantile: float = setting(SHARE, 0.5)
    """Quantile of a runner's call times that is compared."""

    eject_latency_floor: float = setting(SECONDS, 1.0)
    """Seconds below which no runner counts as too slow."""

    eject_share: float = setting(SHARE, 0.5)
    """Maximum share of the runners that may be ejected at once. With two or more runners, one may
    always be ejected, and never all."""

    eject_interval: float = setting(SECONDS, 10.0)
    """Seconds that a slow or faulty runner stays ejected. If the runner was ejected just before, it
    stays ejected twice, three times and up to six times as long."""

    unreachable_wait: float = setting(SECONDS, 10.0)
    """Seconds for which calls wait while no runner of the pool can be reached, counted from the
    moment when the last one became unreachable. Then calls get a 503 at once, and ``/readyz`` says
    503, until a runner answers. A pool without runners is something else: its calls wait."""

    probe_interval: float = setting(SECONDS, 0.5)
    """Seconds between attempts to reach a runner that can't be reached. At first the attempts are
    ten times as frequent."""

    slow_start: float = setting(SECONDS, 5.0)
    """Seconds in which a runner that is back gets a growing share of its calls."""

    def _check_together(self) -> None:
        if self.dns_max_interval < self.dns_min_interval:
            raise ConfigError(
                f"FN_DNS_MAX_INTERVAL={self.dns_max_interval!r} is under "
                f"FN_DNS_MIN_INTERVAL={self.dns_min_interval!r}"
            )


@attrs.frozen(kw_only=True)
class LBConfig(EnvConfig):
    """How an LB agent treats calls. Times are milliseconds, ``math.inf`` = never."""

    execution_headroom: float = setting(MILLISECONDS, 360_000.0)
    """Milliseconds that a detached call gets in addition to the placer's timeout and its own
    timeout, for waiting on the runner, pulling and starting."""

    drain_grace_msecs: float = setting(MILLISECONDS, 30_000.0)
    """Milliseconds that calls get to finish when the agent closes. Ours: Fn waits without limit."""

    max_detached_body: int = setting(number(), 64 * 1024 * 1024)
    """Maximum bytes of a detached call's request body. A node keeps this body whole, because the
    call has to outlive its request, and on a runner also its load balancer. Ours: Fn has no
    limit."""


@attrs.frozen(kw_only=True)
class PlacerConfig(EnvConfig):
    """How long and how often a placer tries. Times are seconds.

    Fn has the first three, for code only; the variables are ours.
    """

    retry_all_delay: float = setting(SECONDS, 0.010)
    """Seconds of pause after the first sweep over all runners."""

    retry_max_delay: float = setting(SECONDS, 0.5)
    """Maximum seconds of that pause, which grows with each sweep. Ours."""

    placer_timeout: float = setting(SECONDS, 360.0)
    """Seconds that a call may wait for its placement. A placed call may run longer."""

    detached_placer_timeout: float = setting(SECONDS, 30.0)
    """Seconds that a detached call may wait for its placement."""

    attempt_timeout: float = setting(SECONDS, 2.0)
    """Seconds in which a runner must take a call before the placer tries the next runner. Includes
    connecting and the TLS handshake. Ours."""

    reserve: bool = setting(FLAG, True)
    """Whether a call first reserves a container on a runner and is then sent there. Concerns
    runners that support reservations and probably have no idle container for the call. Ours."""

    reserve_timeout: float = setting(SECONDS, 60.0)
    """Seconds in which a runner must have a container for a call that reserves one, before the
    placer tries another runner, if there is one. Includes the pull of the image and the start.
    Ours."""

    hedge_quantile: float = setting(SHARE, 0.95)
    """Quantile of the times that the latest reservations for a function took; 0 = never. When a
    reservation takes longer than that, the placer asks a second runner for a container, too.
    Ours."""

    hedge_percent: int = setting(number(high=100), 5)
    """Average percentage of reservations that may ask a second runner. Ours."""

    load_spill_percent: int = setting(number(), 25)
    """Percentage of calls above the even share that a function's preferred runner may have before
    the placers ``bounded`` and ``warm`` turn to the next runner. Ours."""

    max_waiting: int = setting(number(), 10_000)
    """Maximum number of calls that wait for a runner at the same time. A further call gets a 503 at
    once. Ours."""

    max_waiting_bytes: int = setting(number(), 256 * 1024 * 1024)
    """Maximum bytes of the request bodies of all waiting calls together. A call whose body does not
    fit gets a 503 at once. Ours."""

    max_wait: float = setting(SECONDS, 10.0)
    """Maximum expected wait, in seconds, of a call for a runner or a container. A call with a
    longer expected wait gets a 503 at once. A client that says how long it waits
    (``Fn-Request-Timeout``) sets another limit. The limit is lower while clients of the function
    leave sooner. Ours."""

    def _check_together(self) -> None:
        if self.retry_max_delay < self.retry_all_delay:
            raise ConfigError(
                f"FN_RETRY_MAX_DELAY={self.retry_max_delay!r} is under "
                f"FN_RETRY_ALL_DELAY={self.retry_all_delay!r}"
            )
