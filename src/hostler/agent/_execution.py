"""Running one call on a container that it has: hooks, the exchange, and what became of both."""

from __future__ import annotations

import structlog
import trio

from hostler._container_task import no_call_hook
from hostler.call import PendingCall
from hostler.call_stats import CallStats
from hostler.errors import FunctionError

from ._container import Container
from ._endings import explain_end
from ._exchange import Exchange

log = structlog.get_logger(__name__)

REASON_WAIT = 0.5
"""Seconds that a call whose connection broke waits to learn whether its container has ended, and
why. An engine tells within some tens of milliseconds."""

HOOK_LIMIT = 10.0
"""Seconds for a hook that has to run even if the call was cancelled."""


class Execution:
    """One dispatch. Afterwards ``container_ok`` tells whether the container may be used again."""

    def __init__(self, container: Container, call: PendingCall, max_body: int) -> None:
        self._container = container
        self._call = call
        self._exchange = Exchange(container.channel, call, max_body)
        self.container_ok = False

    async def run(self) -> None:
        """Run the call, for as long as the caller's scope lets it. Raises what ended it."""
        before = self._container.task.before_call
        if before is not no_call_hook:
            await before(self._call.model, self._call.extensions)
        await self._dispatch()

    async def _dispatch(self) -> None:
        """The exchange, and the hook that runs after each, whatever became of it."""
        started = trio.current_time()
        error: Exception | None = None
        hook_error: Exception | None = None
        stats = self._container.stats = CallStats()
        try:
            await self._exchange.run()
        except Exception as caught:  # noqa: BLE001  (raised below, after the hook)
            error = await self._explain(caught)
        finally:
            self._container.stats = None
            if stats:
                self._call.model.stats.extend(stats.result())
            self._call.add_user_execution_ns(round((trio.current_time() - started) * 1e9))
            hook_error = await self._after_call()
            self.container_ok = self._exchange.container_ok and hook_error is None
        if error is not None:
            raise error
        if hook_error is not None:
            raise hook_error

    async def _explain(self, error: Exception) -> Exception:
        """A better error than "the connection broke", if the container tells one in time."""
        if not self._exchange.broke or not isinstance(error, FunctionError):
            return error
        with trio.move_on_after(REASON_WAIT):
            await self._container.ended.wait()
        if not self._container.ended.is_set():
            return error
        result = self._container.result
        log.info(
            "container ended during a call",
            call_id=self._call.model.id,
            container_id=self._container.task.id,
            status=result.status if result else "unknown",
            exit_code=result.exit_code if result else None,
        )
        return explain_end(error, result)

    async def _after_call(self) -> Exception | None:
        """Run the hook, also for a call that was cancelled, and return what it raises."""
        hook = self._container.task.after_call
        if hook is no_call_hook:
            return None
        limit = trio.current_time() + HOOK_LIMIT
        with trio.CancelScope(shield=True, deadline=limit) as scope:
            try:
                await hook(self._call.model, self._call.extensions)
            except Exception as error:  # noqa: BLE001  (the caller decides)
                return error
        if scope.cancelled_caught:
            return trio.TooSlowError(f"after-call hook takes longer than {HOOK_LIMIT} s")
        return None
