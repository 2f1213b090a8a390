"""The LB agent: admits calls, has them placed, and sees to their end."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs
import structlog
import trio

from .._concurrency.drain import Grace
from .._concurrency.gate import Gate
from ..abc import CallAgent, CallListener, CallOverrider, Placer, RunnerPool
from ..bodies import BodyBudget
from ..call import LISTENER_SECONDS, CallOption, PendingCall, build_call
from ..config import LBConfig
from ..errors import ServerBusy
from ..metrics import LBMetrics
from ._detached import AckWriter, log_late_failure
from ._report import DrainReport, report_of
from ._run import CallRun, Means
from ._statistics import Counts, LBStatistics

log = structlog.get_logger(__name__)


class LBAgent(CallAgent):
    """See `hostler.lb.open_lb_agent`, which makes it and owns ``detached``, the nursery of the
    detached calls that were acknowledged."""

    def __init__(
        self,
        pool: RunnerPool,
        placer: Placer,
        *,
        detached: trio.Nursery,
        config: LBConfig,
        call_overrider: CallOverrider | None,
        call_options: Iterable[CallOption],
        listeners: Iterable[CallListener],
        metrics: LBMetrics,
        bodies: BodyBudget,
    ) -> None:
        self._placer = placer
        self._detached = detached
        self._config = config
        self._overrider = call_overrider
        self._options = tuple(call_options)
        self._counts = Counts(metrics)
        self._gate = Gate()
        self._drain_from: LBStatistics | None = None
        self._drain_began = math.inf
        self._drain_until = math.inf
        self.drain_report: DrainReport | None = None
        """What the drain has cost, once the agent has drained."""
        self._means = Means(
            pool=pool,
            placer=placer,
            listeners=tuple(listeners),
            counts=self._counts,
            bodies=bodies,
            log=log.bind(),
        )

    def __repr__(self) -> str:
        state = "closed" if self._gate.closed else "open"
        return f"<LBAgent {state} {self.statistics()}>"

    def statistics(self) -> LBStatistics:
        return self._counts.snapshot()

    def get_call(self, *options: CallOption) -> PendingCall:
        return build_call((*options, *self._options), self._overrider)

    async def submit(self, call: PendingCall) -> None:
        self._counts.submitted()
        if self._gate.closed:
            self._counts.refused()
            await trio.lowlevel.checkpoint()
            raise ServerBusy
        detached = call.model.type == "detached"
        # Several calls in one scope are not one visitor.
        lent = None if detached or call.scope in self._gate else call.scope
        # (As `Gate.enter`, whose generator costs each call a microsecond more.)
        self._gate.admit(scope := lent or trio.CancelScope())
        try:
            if lent is not None:
                await CallRun(self._means, call).run()
                return
            with scope:
                if detached:
                    await self._detached.start(self._run_detached, call)
                else:
                    await CallRun(self._means, call).run()
                return
        finally:
            self._gate.leave(scope)
        # The agent closes and the grace is over.
        raise call.cut_error()

    async def _run_detached(self, call: PendingCall, *, task_status: trio.TaskStatus[None]) -> None:
        """Until the acknowledgement this is a part of the caller's task: errors are raised there,
        and it is cancelled with it. After that no error may leave."""
        writer = call.writer = AckWriter(task_status.started)
        self._counts.detached += 1
        try:
            await CallRun(self._means, call).run(
                seconds=self._detached_seconds(call),
                body_limit=self._config.max_detached_body,
            )
            writer.acknowledge()
        except Exception as error:
            if not writer.acknowledged:
                raise
            log_late_failure(call.model.id, error)
        finally:
            self._counts.detached -= 1

    def _detached_seconds(self, call: PendingCall) -> float:
        placing = self._placer.config.detached_placer_timeout
        return placing + call.model.timeout + self._config.execution_headroom / 1000

    def close_admission(self) -> None:
        """Refuse new calls and those that no runner has taken yet. Idempotent."""
        self._gate.close()
        self._placer.close()

    def begin_drain(self, grace: float | Grace) -> None:
        """Calls that wait for room on a runner are refused, and no call waits for room from now
        on; all others may run, also those that wait for a busy container. The end of the agent's
        block closes admission, and keeps within ``grace`` seconds from now. Only the first call
        counts.

        For a front end that stops: it calls this, lets the requests that it has accepted go on, and
        leaves the block after them.
        """
        if self._drain_from is None:
            self._drain_from, self._drain_began = self.statistics(), trio.current_time()
            self._drain_until = Grace.of(grace).deadline()
            log.info("lb agent drains", **self._left())
            self._placer.stop_waiting()

    async def drain(self, grace: float | Grace) -> None:
        """Close admission and give the calls under way ``grace`` seconds to end, less if an earlier
        `begin_drain` says so, then cancel them.

        Detached ones end with their nursery, whose deadline this sets: nothing may be awaited
        in its block afterwards.
        """
        self.begin_drain(grace)
        self.close_admission()
        deadline = min(self._drain_until, Grace.of(grace).deadline())
        with trio.move_on_at(deadline) as scope:
            await self._gate.wait_empty()
        self._detached.cancel_scope.deadline = deadline
        if scope.cancelled_caught and any(self._left().values()):
            log.warning("lb agent cancels what is left", **self._left())
            self._gate.cancel_all()
            # Shielded from the deadline above, and bounded: what a cancelled call still does is
            # to tell its listeners.
            with trio.CancelScope(shield=True, deadline=deadline + LISTENER_SECONDS):
                await self._gate.wait_empty()

    def _left(self) -> dict[str, int]:
        statistics = self.statistics()
        return {"running": statistics.running, "detached": statistics.detached}

    def note_end(self) -> None:
        """All is over that could be ended: make the report."""
        if self._drain_from is None:
            return
        self.drain_report = report_of(
            self._drain_from,
            self.statistics(),
            seconds=trio.current_time() - self._drain_began,
            tasks=self._gate.inside + len(self._detached.child_tasks),
        )
        told = log.info if self.drain_report.clean else log.warning
        told("lb agent has drained", **attrs.asdict(self.drain_report))

    def abort(self) -> None:
        """Cancel everything now."""
        self.close_admission()
        self._gate.cancel_all()
        self._detached.cancel_scope.cancel()
