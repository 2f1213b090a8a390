"""One request to a function and its response, streamed both ways."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress

import structlog
import trio

from hostler.call import PendingCall
from hostler.errors import (
    APIError,
    CallTimeout,
    FunctionFailed,
    FunctionInvalidResponse,
    FunctionResponseError,
    FunctionResponseHeaderTooBig,
    FunctionResponseTooBig,
    FunctionWriteRequest,
)
from hostler.protocol import BODY_PIECE

from ..http1.client import Connection, FunctionBroke, HeadTooBig, RequestHead, ResponseHead, Stale
from ._limit import CallEnded, CallLimit
from .socket_directory import Channel

log = structlog.get_logger(__name__)

INLINE_BODY = 64 * 1024
"""Bytes of a body in memory that are written together with the head, before anything is read.
The socket's buffer holds that much even if the function never reads, so this can't block."""

_OK, _FAILED, _TIMED_OUT = 200, 502, 504
"""The statuses of Fn's function contract; every other one is a mistake of the function kit."""


class Exchange:
    """Runs ``call`` over ``channel``, within ``limit``.

    Afterwards, whether `run` returned, raised or was cancelled, ``container_ok`` tells whether
    the container may serve other calls: the function kept the contract, and its answer to this
    call is over. ``broke`` tells that the connection broke, so that the container may be about
    to end, and ``reached_nobody`` that this was known before anything of the call was written.
    ``ended_at`` is when (`trio.current_time`) it was over.

    ``goes_on`` tells that the caller has left whose request is complete, so that the function can
    still end in peace: then either `finish` or `give_up` has to be called.
    """

    def __init__(
        self, channel: Channel, call: PendingCall, limit: CallLimit, max_body: int
    ) -> None:
        self._channel = channel
        self._call = call
        self._limit = limit
        self._max_body = max_body
        self._connection: Connection
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
        """Send the request, hand the response to the call's writer. It is ``now``
        (`trio.current_time`).

        Raises the `FunctionError` that the contract says; `CallEnded`; what the writer raises; and
        what reading the body raises, whereupon the function sees a broken request.
        """
        self.ended_at = now
        self.container_ok = True  # until it gets anything of this call
        head = RequestHead(self._call.model, self._call.run_seconds(now))
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._connection = self._channel.connection(now)
            self.container_ok = False
            try:
                data = self._call.body.data
                if data is not None and len(data) <= INLINE_BODY:
                    if left := self._begin(head, data):
                        self._sending = not await self._limit.run(self._go_on(left))
                    self._complete = not self._sending
                    await self._receive()
                else:
                    await self._limit.run(self._stream(head))
            except (CallEnded, APIError, FunctionBroke, HeadTooBig):
                raise
            except BaseException:  # of the caller, who is cancelled or takes no more
                self.goes_on = self._complete and not self._limit.ended
                raise
            finally:
                self.ended_at = trio.current_time()
                if not self.goes_on:
                    self._settle()
        except FunctionBroke as error:
            self.broke, self.container_ok = True, False
            self.reached_nobody = isinstance(error, Stale)
            log.info("function broke the exchange", call_id=self._call.model.id, reason=str(error))
            within_request = self._sending and not self._answered
            raise (FunctionWriteRequest if within_request else FunctionResponseError) from error
        except HeadTooBig as error:
            raise FunctionResponseHeaderTooBig from error

    async def finish(self) -> None:
        """Take the rest of the answer for nobody. Afterwards ``container_ok`` and ``ended_at`` are
        as after `run`. Raises nothing but `trio.Cancelled`."""
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
        """The function is not waited for."""
        self._settle()

    def _settle(self) -> None:
        self._channel.settle(self._connection, reusable=self.container_ok, now=self.ended_at)

    # --- the request ---

    def _begin(self, head: RequestHead, body: bytes | None = None) -> bytes:
        """Write the begin of the request, with ``body`` all of it in one write; on a new
        connection if the one at hand is no good, the one case for a second attempt. Returns what
        could not be written yet."""
        try:
            return self._connection.begin(head, body)
        except Stale:
            self._connection = self._channel.replace(self._connection)
            return self._connection.begin(head, body)

    async def _go_on(self, left: bytes) -> bool:
        """Whether it was written. A function that stops to read may have answered: that is left to
        who receives."""
        with suppress(FunctionBroke):
            await self._connection.write(left)
            return True
        return False

    async def _stream(self, head: RequestHead) -> None:
        """Send the body in a child task while the response is received here. The head goes first:
        what comes before it is no answer."""
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
            pass  # not an error if there is a complete answer: who receives will find out
        except Exception as error:  # noqa: BLE001  (raised by `hostler.wire.connection`)
            self._body_error = error
            connection.close()  # before its regular end, so that the function sees a broken body
            receiving.cancel()

    # --- the response ---

    async def _receive(self) -> None:
        """As `_receive_all`, within the limit: most calls wait for nothing but the head."""
        connection, limit = self._connection, self._limit
        if limit.ended:
            raise CallEnded
        limit.interrupt = connection.interrupt
        try:
            response = await connection.receive_head()
        except trio.ClosedResourceError:
            raise CallEnded from None
        finally:
            limit.interrupt = None
        if (left := self._hand_on(response)) is not None:
            await limit.run(left)
        self.container_ok = True

    async def _receive_all(self) -> None:
        if (left := self._hand_on(await self._connection.receive_head())) is not None:
            await left
        self.container_ok = True

    def _hand_on(self, response: ResponseHead) -> Awaitable[None] | None:
        """Check ``response``, and hand what is here of it to the writer if that takes it now.
        Returns what is left to be done."""
        self._answered = True
        self._check_status(response.status)
        if self._max_body and response.length is not None and response.length > self._max_body:
            # Known before anything was passed on: the caller gets a clean error.
            self.container_ok = True
            raise FunctionResponseTooBig
        if self._call.writer.start_now(response.status, response.for_caller):
            return self._body()
        return self._start(response)

    async def _start(self, response: ResponseHead) -> None:
        await self._call.writer.start(response.status, response.for_caller)
        if (left := self._body()) is not None:
            await left

    def _body(self) -> Awaitable[None] | None:
        """As `_hand_on`, behind the head."""
        body, writer = self._connection.whole_body, self._call.writer
        if body is None:
            return self._receive_body()
        # (its length was checked)
        return None if not body or writer.write_now(body) else writer.write(body)

    async def _receive_body(self) -> None:
        left = self._max_body
        while data := await self._connection.receive_body():
            if self._max_body and len(data) > left:
                if left:
                    await self._call.writer.write(data[:left])
                self.container_ok = True
                raise FunctionResponseTooBig
            left -= len(data)
            await self._call.writer.write(data)

    def _check_status(self, status: int) -> None:
        if status == _OK:
            return
        if status in (_FAILED, _TIMED_OUT):
            self.container_ok = True
            self._connection.skip_received()
            raise FunctionFailed if status == _FAILED else CallTimeout
        raise FunctionInvalidResponse
