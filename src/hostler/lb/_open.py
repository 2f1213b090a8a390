"""Opening and draining an LB agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from .._concurrency.drain import Grace
from .._concurrency.nurseries import open_background
from ..abc import CallListener, CallOverrider, Placer, RunnerPool
from ..bodies import BodyBudget
from ..call import CallOption, check_overrider
from ..config import LBConfig
from ..metrics import LBMetrics, default_metrics
from ._agent import LBAgent


@asynccontextmanager
async def open_lb_agent(
    pool: RunnerPool,
    placer: Placer,
    *,
    config: LBConfig | None = None,
    call_overrider: CallOverrider | None = None,
    call_options: Iterable[CallOption] = (),
    listeners: Iterable[CallListener] = (),
    metrics: LBMetrics | None = None,
    bodies: BodyBudget | None = None,
    grace: float | Grace | None = None,
) -> AsyncIterator[LBAgent]:
    """An agent that has its calls run by the runners of ``pool``, chosen by ``placer``.

    ``call_options`` are applied to each call after the caller's, then the ``call_overrider``.
    ``listeners`` are told of each call in order. ``metrics`` are the process's own by default;
    give the placer the same. ``bodies``, for which detached calls' bodies count, is to be the
    front end's. ``pool`` is opened, and closed, by the caller, around this block.

    Leaving the block drains: new calls and those that are still searching for a runner get
    `ServerBusy` at once, which also closes the placer; what runs, detached calls too, has
    ``grace`` seconds (default: ``config.drain_grace_msecs``) to end and is then cancelled.
    Left by an exception or a cancellation there is no grace. A call that the agent has to cancel
    raises `ServiceReservationFailure` in its submitter's task, since it may have run, or
    `ServerBusy` if no runner had got it. Afterwards ``agent.drain_report``
    says what the drain has cost.

    Raises `ConfigError` for a ``call_overrider`` that does not take what it gets.
    """
    check_overrider(call_overrider)
    config = config or LBConfig()
    async with open_background() as detached:
        agent = LBAgent(
            pool,
            placer,
            detached=detached,
            config=config,
            call_overrider=call_overrider,
            call_options=call_options,
            listeners=listeners,
            metrics=metrics or default_metrics(),
            bodies=bodies or BodyBudget(),
        )
        try:
            yield agent
            await agent.drain(config.drain_grace_msecs / 1000 if grace is None else grace)
        except BaseException:
            agent.abort()
            raise
    agent.note_end()
