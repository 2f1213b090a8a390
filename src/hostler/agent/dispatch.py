"""Dispatch: one call on its container: hooks, the HTTP exchange, limits, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import attrs
import structlog
import trio

from .. import _fast
from .._fast import FastWriter
from ..abc import no_call_hook
from ..calls import PendingCall
from ..errors import (
    APIError,
    CallTimeout,
    FunctionError,
    FunctionFailed,
    FunctionInvalidResponse,
    FunctionResponseError,
    FunctionResponseHeaderTooBig,
    FunctionResponseTooBig,
    FunctionWriteRequest,
    HostlerError,
)
from ..http1.client import (
    ClientConnection,
    FunctionBroke,
    FunctionRequestHead,
    HeadTooBig,
    ResponseHead,
    StaleConnection,
)
from ..protocol import BODY_PIECE
from .container import Container, explain_end
from .socket_directory import Channel

log = structlog.get_logger(__name__)

REASON_WAIT = 0.5
"""Seconds that a call whose connection broke waits to learn whether and why its container has
ended. An engine tells within some tens of milliseconds."""

END_WAIT = 10.0
"""Further seconds for an engine that is slow to tell, if no process listens in the container."""

HOOK_LIMIT = 10.0
"""Seconds for a hook that has to run even if the call was cancelled."""


class ContainerAlreadyGone(HostlerError):
    """The container had ended before anything of the call was written to it, so another container
    can run the call."""


async def execute(
    container: Container, call: PendingCall, limit: ExecutionScope, max_body: int, now: float
) -> None:
    """Run ``call`` from ``now`` on, within ``limit``, on ``container``, which it has. Gives the
    container back, whatever happens; if the caller has left, perhaps only once the function has
    ended (`Container.let_end`). Raises what ended the call. Raises `ContainerAlreadyGone`, but not
    for a container that was started for this call: a function that ends as soon as it is ready
    would be started again and again."""
    reusable, ran, goes_on = False, True, False
    ended: float | None = None
    error: Exception | None = None
    hook_error: Exception | None = None
    try:
        before = container.task.before_call
        if before is not no_call_hook:
            await limit.run(before(call.model, call.extensions))
            now = trio.current_time()
        exchange = FunctionExchange(container.channel, call, limit, max_body)
        samples = container.samples
        samples.running = True
        try:
            await exchange.run(now)
        except Exception as caught:  # noqa: BLE001  (raised below, after the hook)
            error = caught
            if exchange.broke:
                error = await limit.run(_explain(exchange, container, call, caught))
                ran = not isinstance(error, ContainerAlreadyGone)
        finally:
            samples.running = False
            if samples.stats is not None:
                call.model.stats.extend(samples.stats.result())
                samples.stats = None
            ended = exchange.ended_at
            call.add_user_execution_ns(round((ended - now) * 1e9))
            if exchange.goes_on:
                goes_on = container.let_end(_LeftCall(exchange, container, call), limit.deadline)
                if not goes_on:
                    ran = False  # to its end
                    exchange.give_up()
            if not goes_on:
                if container.task.after_call is not no_call_hook:
                    hook_error = await _after_call(container, call)
                    ended = None
                reusable = exchange.container_ok and hook_error is None
    finally:
        # First of all, so that the next call need not wait for listeners.
        if not goes_on:
            container.give_back(reusable=reusable, now=ended, ran=ran)
    if error is not None:
        raise error
    if hook_error is not None:
        raise hook_error


@attrs.frozen
class _LeftCall:
    exchange: FunctionExchange
    container: Container
    call: PendingCall

    async def finish(self) -> bool:
        hook_error: Exception | None = None
        try:
            await self.exchange.finish()
        finally:
            hook_error = await _after_call(self.container, self.call)
        return self.exchange.container_ok and hook_error is None


async def _explain(
    exchange: FunctionExchange, container: Container, call: PendingCall, error: Exception
) -> Exception:
    """A better error than "the connection broke", if the container's end gives one in time."""
    if exchange.reached_nobody and not container.fresh:
        return ContainerAlreadyGone(str(error))
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
    """Run the hook, also for a cancelled call, and return what it raises."""
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


INLINE_BODY = 64 * 1024
"""Bytes of a body in memory that are written together with the head, before anything is read. The
socket's buffer holds that much even if the function never reads, so this can't block."""

_OK, _FAILED, _TIMED_OUT = 200, 502, 504
"""The statuses of Fn's function contract; every other one is a mistake of the function kit."""


class FunctionExchange:
    """Runs ``call`` over ``channel``, within ``limit``.

    Afterwards, whether `run` returned, raised or was cancelled, ``container_ok`` tells whether the
    container may serve other calls: the function kept the contract, and its answer to this call is
    over. ``broke`` tells that the connection broke, so that the container may be about to end, and
    ``reached_nobody`` that this was known before anything of the call was written. ``ended_at`` is
    when the exchange was over (`trio.current_time`).

    ``goes_on`` tells that the caller has left after its request was complete, so that the function
    can still end in peace: then either `finish` or `give_up` has to be called.
    """

    def __init__(
        self, channel: Channel, call: PendingCall, limit: ExecutionScope, max_body: int
    ) -> None:
        writer = call.writer
        self._channel = channel
        self._call = call
        self._writer = writer
        self._fast_writer = writer if _fast.enabled and isinstance(writer, FastWriter) else None
        self._limit = limit
        self._max_body = max_body
        self._connection: ClientConnection
        self._sending = False
        """The function has got a part of the request."""
        self._complete = False
        """All of the request was written."""
        self._answered = False
        self._body_error: Exception | None = None
        self.container_ok = False
        self.broke = False
        self.reached_nobody = False
        self.goes_on = False
        self.ended_at = 0.0

    async def run(self, now: float) -> None:
        """Send the request, and hand the response to the call's writer. It is ``now``
        (`trio.current_time`).

        Raises the `FunctionError` of the contract; `ExecutionEnded`; what the writer raises; and
        what reading the body raises, whereupon the function sees a broken request.
        """
        self.ended_at = now
        self.container_ok = True  # until it gets anything of this call
        limit = self._limit
        head = FunctionRequestHead(self._call.model, self._call.run_seconds(now))
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._connection = self._channel.connection(now)
        except FunctionBroke as error:
            raise self._broken(error) from error
        self.container_ok = False
        try:
            data = self._call.body.data
            if data is None or len(data) > INLINE_BODY:
                await limit.run(self._stream(head))
                return
            if unsent := self._begin(head, data):
                self._sending = not await limit.run(self._go_on(unsent))
            self._complete = not self._sending
            # Most calls wait only for the head, and that without a scope.
            limit.interrupt_with(self._connection.interrupt)
            try:
                response = await self._connection.receive_head()
            except trio.ClosedResourceError:
                raise ExecutionEnded from None
            finally:
                limit.interrupt = None
            if (left := self._hand_on(response)) is not None:
                await limit.run(left)
            self.container_ok = True
        except FunctionBroke as error:
            raise self._broken(error) from error
        except HeadTooBig as error:
            raise FunctionResponseHeaderTooBig from error
        except (ExecutionEnded, APIError):
            raise
        except BaseException:  # the caller is cancelled or takes no more
            self.goes_on = self._complete and not limit.ended
            raise
        finally:
            self.ended_at = trio.current_time()
            if not self.goes_on:
                self._settle()

    def _broken(self, error: FunctionBroke) -> APIError:
        """The error that the call gets."""
        self.broke, self.container_ok = True, False
        self.reached_nobody = isinstance(error, StaleConnection)
        log.info("function broke the exchange", call_id=self._call.model.id, reason=str(error))
        within_request = self._sending and not self._answered
        return FunctionWriteRequest() if within_request else FunctionResponseError()

    async def finish(self) -> None:
        """Take the rest of the answer and drop it. Afterwards ``container_ok`` and ``ended_at`` are
        as after `run`. Raises only `trio.Cancelled`."""
        connection = self._connection
        try:
            if not self._answered:
                self._check_status((await connection.receive_head()).status)
            if connection.whole_body is None:
                while await connection.receive_body():
                    pass
            self.container_ok = True
        except (APIError, FunctionBroke, HeadTooBig):
            pass
        finally:
            self.ended_at = trio.current_time()
            self._settle()

    def give_up(self) -> None:
        """Don't wait for the function."""
        self._settle()

    def _settle(self) -> None:
        self._channel.settle(self._connection, reusable=self.container_ok, now=self.ended_at)

    # --- the request ---

    def _begin(self, head: FunctionRequestHead, body: bytes | None = None) -> bytes:
        """Write the begin of the request, with ``body`` all of it in one write. If the connection
        at hand turns out to be stale, try once more on a new one; this is the only second attempt.
        Returns what could not be written yet."""
        try:
            return self._connection.begin(head, body)
        except StaleConnection:
            self._connection = self._channel.replace(self._connection)
            return self._connection.begin(head, body)

    async def _go_on(self, left: bytes) -> bool:
        """Whether ``left`` was written. A function that stops reading may have answered: the
        receiver finds out."""
        with suppress(FunctionBroke):
            await self._connection.write(left)
            return True
        return False

    async def _stream(self, head: FunctionRequestHead) -> None:
        """Send the body in a child task while the response is received here. The head goes first:
        bytes that come before it are no answer."""
        error: Exception | None = None
        left = self._begin(head)
        self._sending = True
        if left:
            await self._go_on(left)
        async with trio.open_nursery() as nursery:
            receiving = trio.CancelScope()
            nursery.start_soon(self._send_stream, receiving)
            with receiving:
                try:
                    await self._receive_all()
                except Exception as caught:  # noqa: BLE001  (raised below, not in a group)
                    error = caught
            nursery.cancel_scope.cancel()  # what the function has not read, it will not read
        if self._body_error is not None and not self.container_ok:
            raise self._body_error
        if error is not None:
            raise error

    async def _send_stream(self, receiving: trio.CancelScope) -> None:
        connection = self._connection
        try:
            async with self._call.body.open() as body:
                while piece := await body.receive_some(BODY_PIECE):
                    await connection.send_piece(bytes(piece))
            await connection.send_end()
            self._sending, self._complete = False, True
        except FunctionBroke:
            pass  # no error if there is a complete answer: the receiver finds out
        except Exception as error:  # noqa: BLE001  (of the body; raised by `_stream`)
            self._body_error = error
            connection.close()  # before its regular end, so that the function sees a broken body
            receiving.cancel()

    # --- the response ---

    async def _receive_all(self) -> None:
        if (left := self._hand_on(await self._connection.receive_head())) is not None:
            await left
        self.container_ok = True

    def _hand_on(self, response: ResponseHead) -> Awaitable[None] | None:
        """Check ``response``, and pass it to the writer. Returns what has to be awaited for that;
        ``None`` if the writer has taken all of it at once."""
        self._answered = True
        self._check_status(response.status)
        if self._max_body and response.length is not None and response.length > self._max_body:
            # Known before anything was passed on, so the caller gets a clean error.
            self.container_ok = True
            raise FunctionResponseTooBig
        fast = self._fast_writer
        if fast is None or not fast.start_now(response.status, response.for_caller):
            return self._pass_on(response)
        body = self._connection.whole_body
        if body is None:
            return self._receive_body()
        return None if not body or fast.write_now(body) else self._writer.write(body)

    async def _pass_on(self, response: ResponseHead) -> None:
        await self._writer.start(response.status, response.for_caller)
        body = self._connection.whole_body
        if body is None:
            await self._receive_body()
        elif body:  # (its length was checked)
            await self._writer.write(body)

    async def _receive_body(self) -> None:
        left = self._max_body
        while data := await self._connection.receive_body():
            if self._max_body and len(data) > left:
                if left:
                    await self._writer.write(data[:left])
                self.container_ok = True
                raise FunctionResponseTooBig
            left -= len(data)
            await self._writer.write(data)

    def _check_status(self, status: int) -> None:
        if status == _OK:
            return
        if status in (_FAILED, _TIMED_OUT):
            self.container_ok = True
            self._connection.skip_received()
            raise FunctionFailed if status == _FAILED else CallTimeout
        raise FunctionInvalidResponse


_T = TypeVar("_T")


class ExecutionEnded(Exception):
    """The call was ended by its `ExecutionScope`."""


class ExecutionScope:
    """The scope of one call. It can be cancelled at any time, and is cancelled at its ``deadline``
    by the agent's timer.

    A cancel scope costs a quarter of all that an agent does for a call on a hot container, which
    waits only for its function. So that wait is interrupted in another way (`interrupt`), and all
    other waits have scopes of their own (`run`).
    """

    def __init__(self) -> None:
        self.deadline = math.inf
        """When it is to be ended (`trio.current_time`)."""
        self.ended = False
        self.interrupt: Callable[[], None] | None = None
        """Ends a wait that has no scope. Set by that wait."""

    def interrupt_with(self, interrupt: Callable[[], None]) -> None:
        """``interrupt`` ends the wait that begins now. Raises `ExecutionEnded` if the call was
        ended before."""
        if self.ended:
            raise ExecutionEnded
        self.interrupt = interrupt

    def cancel(self) -> None:
        """End the call: its wait, present or next, raises `ExecutionEnded`. Synchronous."""
        self.ended = True
        if self.interrupt is not None:
            self.interrupt()

    expire = cancel
    """The deadline has passed."""

    async def run(self, wait: Awaitable[_T]) -> _T:
        """Await ``wait``. Raises `ExecutionEnded` if the call was ended, or is ended meanwhile. May
        be cancelled. Not to be nested."""
        scope = trio.CancelScope()
        if self.ended:
            scope.cancel()
        self.interrupt = scope.cancel
        try:
            with scope:
                return await wait
        finally:
            self.interrupt = None
        raise ExecutionEnded
