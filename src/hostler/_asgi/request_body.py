"""The request's side of one exchange: its body, and the news that the client has gone."""

from __future__ import annotations

import math
from collections import deque

import attrs
import trio

from .._concurrency.signal import Signal
from ..bodies import BodyBudget
from ..errors import APIError, HostlerError, RequestTooBig
from .types import GoneListener, Message, Receive, Send

READ_AHEAD = 64 * 1024
"""Bytes of a body that are held before the client has to wait for the function. Bodies with a
declared length up to this are read whole before the call is made."""

HELD_WHILE_STUCK = 64 * 1024 * 1024
"""Bytes of one body that are held if the client does not take its response meanwhile, as far as
the bodies of all calls together may have memory (`BodyConfig.body_memory`): many clients read only
after they have written everything."""
STUCK_SECONDS = 0.2
"""How long such a client takes nothing, and the function nothing of the body, before more is held
than `READ_AHEAD`. One that reads slowly does not get there, so that it slows its own request."""


class BodyBroken(HostlerError):
    """The client went away before its body was complete."""


class BodyTimeout(APIError, code=408, text="Request body read timed out"):
    """The body did not arrive within the time that is configured for it."""


@attrs.frozen
class CallBodyLimits:
    """What the bodies of calls may take, at one front end."""

    size: float
    """Bytes of one body; `math.inf` = any."""
    read_timeout: float
    """Seconds in which one body must have arrived."""
    budget: BodyBudget
    """Of all bodies together."""


class Outgoing:
    """The response's side of one exchange, for the request's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.sending = False
        self.sent = 0
        """Messages."""
        self.changed = Signal()
        """Also of the request's side."""

    async def send(self, message: Message) -> None:
        """ASGI's ``send``."""
        self.sending = True
        self.changed.note()
        try:
            await self._send(message)
        finally:
            self.sending = False
            self.sent += 1


class RequestBody(trio.abc.ReceiveStream):
    """Reads one ASGI request. As a stream it is the request's body.

    `begin` reads what there is of the body before the call, in the request's own task. If that is
    not all, or if the server can't tell of a client that goes by itself (`OwnServer`), `watch`
    goes on in a task of its own until the exchange is over, so that such a client is noticed,
    whatever the call waits for. Where only `watch` tells, the news of a client that leaves while
    the function does not take its large body is behind the bytes, and is seen when they are taken.

    ``listener`` is told when either has seen that the client has gone.

    A client may not take the response, which goes through ``outgoing``, until it has sent its body:
    `watch` holds up to `HELD_WHILE_STUCK` bytes for it, counted in the budget until `discard`.
    """

    def __init__(
        self,
        receive: Receive,
        listener: GoneListener,
        outgoing: Outgoing,
        limits: CallBodyLimits,
    ) -> None:
        self._receive = receive
        self._listener = listener
        self._outgoing = outgoing
        self._budget = limits.budget
        self._limit = limits.size
        self._read_until = trio.current_time() + limits.read_timeout
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._counted = 0
        """Bytes that are held beyond `READ_AHEAD`."""
        self._received = 0
        self._discard = False
        self._changed = outgoing.changed
        self._stuck = -1
        """The message that the client does not take."""
        self.complete = False
        """The whole body has arrived."""
        self.failure: Exception | None = None
        """Why the body will never be complete."""

    async def begin(self, up_to: int) -> None:
        """Read until the body is complete, or ``up_to`` bytes of it are here (`READ_AHEAD` at most,
        since no more is held). Not while `watch` runs. Raises what has become of a body that
        failed."""
        while not self.complete and self._held < up_to:
            self._note(await self._next())
            if self.failure is not None:
                raise self.failure

    async def watch(self) -> None:
        """Take what the client sends, until it has gone, or until cancelled."""
        there = True
        while there:
            while self._held >= READ_AHEAD and not self._discard and not await self._is_stuck():
                pass
            there = self._note(await self._next())

    async def _is_stuck(self) -> bool:
        """Whether the client does not take its response, and more of the body may be held. If not,
        or not yet, return when something has changed."""
        outgoing, budget = self._outgoing, self._budget
        if (
            not outgoing.sending
            or self._held >= HELD_WHILE_STUCK
            or budget.memory >= budget.config.body_memory
        ):
            await self._changed.wait()
            return False
        sent = outgoing.sent
        if self._stuck != sent:
            with trio.move_on_after(STUCK_SECONDS) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught and outgoing.sent == sent:
                self._stuck = sent
        return self._stuck == sent

    def _hold(self, size: int) -> None:
        """So many bytes more, or less."""
        self._held += size
        beyond = max(0, self._held - READ_AHEAD)
        self._budget.memory += beyond - self._counted
        self._counted = beyond

    def discard(self) -> None:
        """From now on nobody wants the body: throw away what arrives of it."""
        self._discard = True
        self._chunks.clear()
        self._hold(-self._held)
        self._changed.note()

    def taken(self) -> bytes:
        """What is here of the body, which is then no longer held."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._hold(-self._held)
        self._changed.note()
        return data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next piece of the body, ``b""`` at its end. Raises what has become of it."""
        await trio.lowlevel.checkpoint()
        while not self._chunks and not self.complete and self.failure is None:
            await self._changed.wait()
        # No await from here on: a failure drops the chunks, which must not look like the end.
        if self.failure is not None:
            raise self.failure
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        if max_bytes is not None and len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._hold(-len(chunk))
        self._changed.note()
        return chunk

    async def aclose(self) -> None:
        """Nothing to do: what is still to come belongs to `watch`, until `discard`."""
        await trio.lowlevel.checkpoint()

    def _note(self, event: Message | None) -> bool:
        """Whether the client is still there."""
        if event is None:
            self._fail(BodyTimeout())
        elif event["type"] == "http.disconnect":
            if not self.complete:
                self._fail(BodyBroken("the client went away before its body was complete"))
            self._listener.note_gone()
            return False
        else:
            self._take(event.get("body", b""), more=event.get("more_body", False))
        return True

    async def _next(self) -> Message | None:
        """What the client sends next; ``None`` if the body's time is over."""
        if self.complete or self.failure is not None or math.isinf(self._read_until):
            return await self._receive()
        with trio.move_on_at(self._read_until):
            try:
                return await self._receive()
            except BodyTimeout:  # hostler's own server keeps the time of small bodies
                pass
        return None

    def _take(self, data: bytes, *, more: bool) -> None:
        self._received += len(data)
        if self._received > self._limit:
            self._fail(RequestTooBig())
        elif data and not self._discard:
            self._chunks.append(data)
            self._hold(len(data))
        if not more and self.failure is None:
            self.complete = True
        self._changed.note()

    def _fail(self, failure: Exception) -> None:
        if self.failure is None:
            self.failure = failure
        self.discard()
