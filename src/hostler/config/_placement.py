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
    """Milliseconds (360 000) that a detached call gets in addition to the placer's timeout and its
    own timeout, for waiting on the runner, pulling and starting."""

    drain_grace_msecs: float = attrs.field(
        default=30_000.0, metadata=setting(MILLISECONDS, "FN_DRAIN_GRACE_MSECS")
    )
    """Milliseconds (30 000) that calls get to finish when the agent closes. Ours: Fn waits
    without limit."""

    max_detached_body: int = attrs.field(
        default=64 * 1024 * 1024, metadata=setting(number(), "FN_MAX_DETACHED_BODY")
    )
    """Maximum bytes (67 108 864) of a detached call's request body. A node keeps this body whole,
    because the call has to outlive its request, and on a runner also its load balancer. Ours: Fn
    has no limit."""


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
    """Maximum seconds (0.5) of that pause, which grows with each sweep. Ours."""

    placer_timeout: float = attrs.field(
        default=360.0, metadata=setting(SECONDS, "FN_PLACER_TIMEOUT")
    )
    """Seconds (360) that a call may wait for its placement. A placed call may run longer."""

    detached_placer_timeout: float = attrs.field(
        default=30.0, metadata=setting(SECONDS, "FN_DETACHED_PLACER_TIMEOUT")
    )
    """Seconds (30) that a detached call may wait for its placement."""

    attempt_timeout: float = attrs.field(
        default=2.0, metadata=setting(SECONDS, "FN_ATTEMPT_TIMEOUT")
    )
    """Seconds (2) in which a runner must take a call before the placer tries the next runner.
    Includes connecting and the TLS handshake. Ours."""

    reserve: bool = attrs.field(default=True, metadata=setting(FLAG, "FN_RESERVE"))
    """Whether (yes) a call first reserves a container on a runner and is then sent there. Concerns
    runners that support reservations and probably have no idle container for the call. Ours."""

    reserve_timeout: float = attrs.field(
        default=60.0, metadata=setting(SECONDS, "FN_RESERVE_TIMEOUT")
    )
    """Seconds (60) in which a runner must have a container for a call that reserves one, before the
    placer tries another runner, if there is one. Includes the pull of the image and the start.
    Ours."""

    hedge_quantile: float = attrs.field(default=0.95, metadata=setting(SHARE, "FN_HEDGE_QUANTILE"))
    """Quantile (0.95) of the times that the latest reservations for a function took; 0 = never.
    When a reservation takes longer than that, the placer asks a second runner for a container, too.
    Ours."""

    hedge_percent: int = attrs.field(
        default=5, metadata=setting(number(high=100), "FN_HEDGE_PERCENT")
    )
    """Average percentage (5) of reservations that may ask a second runner. Ours."""

    load_spill_percent: int = attrs.field(
        default=25, metadata=setting(number(), "FN_LOAD_SPILL_PERCENT")
    )
    """Percentage of calls (25) above the even share that a function's preferred runner may have
    before the placers ``bounded`` and ``warm`` turn to the next runner. Ours."""

    max_waiting: int = attrs.field(default=10_000, metadata=setting(number(), "FN_MAX_WAITING"))
    """Maximum number of calls (10 000) that wait for a runner at the same time. A further call gets
    a 503 at once. Ours."""

    max_waiting_bytes: int = attrs.field(
        default=256 * 1024 * 1024, metadata=setting(number(), "FN_MAX_WAITING_BYTES")
    )
    """Maximum bytes (268 435 456) of the request bodies of all waiting calls together. A call whose
    body does not fit gets a 503 at once. Ours."""

    max_wait: float = attrs.field(default=10.0, metadata=setting(SECONDS, "FN_MAX_WAIT"))
    """Maximum expected wait, in seconds (10), of a call for a runner or a container. A call with a
    longer expected wait gets a 503 at once. A client that says how long it waits
    (``Fn-Request-Timeout``) sets another limit. The limit is lower while clients of the function
    leave sooner. Ours."""

    def _check_together(self) -> None:
        if self.retry_max_delay < self.retry_all_delay:
            raise ConfigError(
                f"FN_RETRY_MAX_DELAY={self.retry_max_delay!r} is under "
                f"FN_RETRY_ALL_DELAY={self.retry_all_delay!r}"
            )
