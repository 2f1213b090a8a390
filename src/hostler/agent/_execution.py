"""Running one call on a container that it has: hooks, the exchange, and what became of both."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from hostler.abc import no_call_hook
from hostler.call import PendingCall
from hostler.errors import FunctionError, HostlerError

from ._container import Container
from ._endings import explain_end
from ._exchange import Exchange
from ._limit import CallLimit

log = structlog.get_logger(__name__)

REASON_WAIT = 0.5
"""Seconds that a call whose connection broke waits to learn whether its container has ended, and
why. An engine tells within some tens of milliseconds."""
END_WAIT = 10.0
"""Seconds, beside those, for an engine that is slow to tell: nobody listens in the container."""

HOOK_LIMIT = 10.0
"""Seconds for a hook that has to run even if the call was cancelled."""


class NobodyThere(HostlerError):
    """The container had ended before anything of the call was written to it, so that another one
    can run the call."""


async def execute(
    container: Container, call: PendingCall, limit: CallLimit, max_body: int, now: float
) -> None:
    """Run ``call`` from ``now`` on, within ``limit``, on ``container``, which it has. Gives that
    back, whatever happens; where the caller has left, perhaps once the function has ended
    (`Container.let_end`). Raises what ended the call, and `NobodyThere`, but not of a container
    that was started for this call: a function that ends as soon as it is ready would be started
    again and again."""
    reusable, ran, goes_on = False, True, False
    ended: float | None = None
    error: Exception | None = None
    hook_error: Exception | None = None
    try:
        before = container.task.before_call
        if before is not no_call_hook:
            await limit.run(before(call.model, call.extensions))
            now = trio.current_time()
        exchange = Exchange(container.channel, call, limit, max_body)
        container.samples.begin()
        try:
            await exchange.run(now)
        except Exception as caught:  # noqa: BLE001  (raised below, after the hook)
            error = caught
            if exchange.reached_nobody and not container.fresh:
                ran = False
                error = NobodyThere(str(caught))
            elif exchange.broke:
                error = await limit.run(_explain(container, call, caught))
        finally:
            container.samples.end(call.model)
            ended = exchange.ended_at
            call.add_user_execution_ns(round((ended - now) * 1e9))
            if exchange.goes_on:
                rest = partial(_finish, exchange, container, call)
                goes_on = container.let_end(rest, limit.deadline)
                if not goes_on:
                    ran = False  # to its end
                    exchange.give_up()
            if not goes_on:
                if container.task.after_call is not no_call_hook:
                    hook_error = await _after_call(container, call)
                    ended = None
                reusable = exchange.container_ok and hook_error is None
    finally:
        # Before all else, so that the next call need not wait for listeners.
        if not goes_on:
            container.give_back(reusable=reusable, now=ended, ran=ran)
    if error is not None:
        raise error
    if hook_error is not None:
        raise hook_error


async def _finish(exchange: Exchange, container: Container, call: PendingCall) -> bool:
    """Let the function end that works on ``call``, which is over. Whether the container may serve
    other calls."""
    hook_error: Exception | None = None
    try:
        await exchange.finish()
    finally:
        hook_error = await _after_call(container, call)
    return exchange.container_ok and hook_error is None


async def _explain(container: Container, call: PendingCall, error: Exception) -> Exception:
    """A better error than "the connection broke", if the container tells one in time."""
    if not isinstance(error, FunctionError):
        return error
    with trio.move_on_after(REASON_WAIT):
        await container.ended.wait()
    if not container.ended.is_set() and container.usable and container.channel.is_deaf():
        with trio.move_on_after(END_WAIT):
            await container.ended.wait()
    if not container.ended.is_set():
        return error
    result = container.result
    log.info(
        "container ended during a call",
        call_id=call.model.id,
        container_id=container.task.id,
        status=result.status if result else "unknown",
        exit_code=result.exit_code if result else None,
    )
    return explain_end(error, result)


async def _after_call(container: Container, call: PendingCall) -> Exception | None:
    """Run the hook, also for a call that was cancelled, and return what it raises."""
    if container.task.after_call is no_call_hook:
        return None
    limit = trio.current_time() + HOOK_LIMIT
    with trio.CancelScope(shield=True, deadline=limit) as scope:
        try:
            await container.task.after_call(call.model, call.extensions)
        except Exception as error:  # noqa: BLE001  (the caller decides)
            return error
    if scope.cancelled_caught:
        return trio.TooSlowError(f"after-call hook takes longer than {HOOK_LIMIT} s")
    return None
