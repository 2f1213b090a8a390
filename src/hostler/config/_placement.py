"""Settings of the LB agent and of the placers."""

from __future__ import annotations

import attrs

from hostler.errors import ConfigError

from ._base import EnvConfig, setting
from ._kinds import FLAG, MILLISECONDS, SECONDS, SHARE, number


@attrs.frozen(kw_only=True)
class LBConfig(EnvConfig):
    """How an LB agent treats calls. Times are milliseconds, ``math.inf`` = never."""

    execution_headroom: float = attrs.field(
        default=360_000.0, metadata=setting(MILLISECONDS, "FN_EXECUTION_HEADROOM")
    )
    """Milliseconds (360 000) that a detached call gets on top of the placer's and its own
    timeout: for waiting on the runner, pulling and starting."""

    drain_grace_msecs: float = attrs.field(
        default=30_000.0, metadata=setting(MILLISECONDS, "FN_DRAIN_GRACE_MSECS")
    )
    """Milliseconds (30 000) that calls get to finish when the agent closes. Ours: Fn waits
    without limit."""

    max_detached_body: int = attrs.field(
        default=64 * 1024 * 1024, metadata=setting(number(), "FN_MAX_DETACHED_BODY")
    )
    """Bytes (67 108 864) of a detached call's request body, which is kept whole because it has to
    outlive the request, and on a runner its load balancer. Ours: Fn has no limit."""


@attrs.frozen(kw_only=True)
class PlacerConfig(EnvConfig):
    """How long and how often a placer tries. Times are seconds.

    Fn has the first three, for code only; the variables are ours.
    """

    retry_all_delay: float = attrs.field(
        default=0.010, metadata=setting(SECONDS, "FN_RETRY_ALL_DELAY")
    )
    """Seconds (0.01) of pause after the first sweep over all runners."""

    retry_max_delay: float = attrs.field(
        default=0.5, metadata=setting(SECONDS, "FN_RETRY_MAX_DELAY")
    )
    """Seconds (0.5) that the pause grows to at most, sweep by sweep. Ours."""

    placer_timeout: float = attrs.field(
        default=360.0, metadata=setting(SECONDS, "FN_PLACER_TIMEOUT")
    )
    """Seconds (360) that a call may wait for its placement; a placed call may run longer."""

    detached_placer_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_DETACHED_PLACER_TIMEOUT")
    )
    """The same (30) for detached calls."""

    attempt_timeout: float = attrs.field(
        default=2.0, metadata=setting(SECONDS, "FN_ATTEMPT_TIMEOUT")
    )
    """Seconds (2) in which one runner must take a call before the next is tried; covers
    connecting and the TLS handshake. Ours."""

    reserve: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_RESERVE"))
    """Whether (yes) a call first reserves a container and is then sent there, on runners that
    say that they can and are not believed to have an idle one for it. Ours."""

    reserve_timeout: float = attrs.field(
        default=60.0, metadata=setting(SECONDS, "FN_RESERVE_TIMEOUT")
    )
    """Seconds (60) in which a runner must have a container for a call that reserves one, before
    the next is tried, if there is another; covers the pull of the image and the start. Ours."""

    hedge_quantile: float = attrs.field(default=0.95, metadata=setting(SHARE, "FN_HEDGE_QUANTILE"))
    """The quantile (0.95) of the times that the latest reservations for a function took, after
    which a second runner is asked for a container too, 0 = never. Ours."""

    hedge_percent: int = attrs.field(
        default=5, metadata=setting(number(high=100), "FN_HEDGE_PERCENT")
    )
    """Of a hundred reservations so many (5) may ask a second runner, on average. Ours."""

    load_spill_percent: int = attrs.field(
        default=25, metadata=setting(number(), "FN_LOAD_SPILL_PERCENT")
    )
    """Percent (25) of calls over the even share that a function's preferred runner may have
    before the placers ``bounded`` and ``warm`` turn to the next. Ours."""

    max_waiting: int = attrs.field(default=10_000, metadata=setting(number(), "FN_MAX_WAITING"))
    """Calls (10 000) that may wait for a runner at the same time; one more gets a 503 at once.
    Ours."""

    max_waiting_bytes: int = attrs.field(
        default=256 * 1024 * 1024, metadata=setting(number(), "FN_MAX_WAITING_BYTES")
    )
    """Bytes (268 435 456) that request bodies of waiting calls may have together; with one more
    body than that a call gets a 503 at once. Ours."""

    max_wait: float = attrs.field(default=10.0, metadata=setting(SECONDS, "FN_MAX_WAIT"))
    """Seconds (10) that a call may have to wait for a runner or a container, by what is known of
    its line, if its client does not say how long it waits (``Fn-Request-Timeout``); one that would
    wait longer gets a 503 at once. It is less while clients of the function leave sooner. Ours."""

    def _check_together(self) -> None:
        if self.retry_max_delay < self.retry_all_delay:
            raise ConfigError(
                f"FN_RETRY_MAX_DELAY={self.retry_max_delay!r} is under "
                f"FN_RETRY_ALL_DELAY={self.retry_all_delay!r}"
            )
