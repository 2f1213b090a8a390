"""One HTTP exchange becomes one call, whichever way it came in."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping

import structlog
import trio

from hostler._asgi import (
    ON_DISCONNECT,
    READ_AHEAD,
    WHOLE_BODY,
    Incoming,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
)
from hostler._trace_context import TraceContext, trace_of
from hostler.abc import Body, CallAgent, CallRequest
from hostler.bodies import BodyBudget, CountedBody, ReplayBody
from hostler.call import CallOption, PendingCall
from hostler.config import NodeConfig
from hostler.errors import APIError, Blame, ClientCancelled, RequestTooBig, public_error
from hostler.headers import canonical_header
from hostler.ids import new_id
from hostler.options import (
    from_http_fn_request,
    invoke_detached,
    with_request_id,
    with_time_limit,
    with_trigger,
    with_writer,
)

from ._entries import Entry, Found
from ._head import Head
from ._metrics import FrontMetrics
from ._writer import AsgiWriter, Truncated

log = structlog.get_logger(__name__)

TellGone = Callable[[Callable[[], None]], None]

CLIENT_GONE = 444
REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
"""What a client's request id has to look like: it goes into logs, and into the metadata of calls
to runners. Another is replaced by one of our own."""


class Invoker:
    """Runs the exchanges of one front end. Holds no state between them."""

    def __init__(
        self,
        agent: CallAgent,
        config: NodeConfig,
        metrics: FrontMetrics,
        bodies: BodyBudget,
    ) -> None:
        self.agent = agent
        self.config = config
        self.metrics = metrics
        self.bodies = bodies

    async def run(self, entry: Entry, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one exchange to its end. Only a cancellation from outside leaves it, or that of the
        connection's scope, if there is one, when the client goes."""
        started_ns = time.monotonic_ns()
        exchange = _Exchange(self, entry, scope, receive, send)
        self.metrics.begun(entry.route, scope["method"])
        try:
            if exchange.owns_scope:
                with exchange.call_scope:
                    await self._see_through(exchange)
            else:
                await self._see_through(exchange)
        finally:
            if exchange.ended or exchange.call_scope.cancel_called:
                self._account(exchange, entry.route, scope["method"], started_ns)

    @staticmethod
    async def _see_through(exchange: _Exchange) -> None:
        try:
            await exchange.run()
        finally:
            if exchange.body is not None:
                await exchange.body.aclose()

    def _account(self, exchange: _Exchange, route: str, method: str, started_ns: int) -> None:
        duration_ns = time.monotonic_ns() - started_ns
        if not exchange.ended:
            exchange.status, exchange.blame = CLIENT_GONE, "service"
            log.info(
                "client cancelled",
                status=CLIENT_GONE,
                **exchange.labels(),
                duration_ms=duration_ns / 1e6,
            )
        self.metrics.answered(
            route,
            method,
            status=exchange.status,
            blame=exchange.blame,
            fdk_version=exchange.writer.fdk_version,
            duration_ns=duration_ns,
        )


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, front: Invoker, entry: Entry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.front = front
        self.entry = entry
        self.head = Head.of(scope)
        extensions = scope.get("extensions", {})
        server = extensions.get(ON_DISCONNECT, {})
        self._on_disconnect: TellGone | None = server.get("call")
        # (A body that turns out to be bad ends the call, too, but not the connection.)
        shared: trio.CancelScope | None = server.get("scope") if WHOLE_BODY in extensions else None
        self.owns_scope = shared is None
        self.call_scope = trio.CancelScope() if shared is None else shared
        """Cancelled when the client goes."""
        self.trace: TraceContext = trace_of(self.head.headers)
        self.send = send
        self.receive = receive
        self.limit = front.config.max_request_size or math.inf
        self.incoming: Incoming | None = None
        """``None`` if the body is here whole, and the server tells of a client that goes."""
        if self._on_disconnect is None or WHOLE_BODY not in extensions:
            self.incoming = Incoming(
                receive,
                self.call_scope.cancel,
                limit=self.limit,
                read_until=trio.current_time() + front.config.request_body_read_timeout,
            )
        self.writer = AsgiWriter(
            send,
            self.call_scope.cancel,
            response_head=entry.response_head,
            head_only=self.head.method == "HEAD",
        )
        self.body: Body | None = None
        self.found: Found | None = None
        self.call_id = ""
        self.fn_id = ""
        self.request_id = ""
        self.ended = False
        """The answer is complete: a client that goes from now on has it."""
        self.status = 200
        self.blame: Blame = "user"

    async def run(self) -> None:
        if self._on_disconnect is not None:
            self._on_disconnect(self.call_scope.cancel)
        prepared: CallRequest | Exception
        try:
            prepared = await self._prepare()
        except Exception as error:  # noqa: BLE001  (every failure becomes an answer)
            prepared = error
        incoming = self.incoming
        if incoming is None or (
            self._on_disconnect is not None
            and (incoming.complete or isinstance(prepared, Exception))
        ):
            await self._proceed(prepared)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(incoming.watch)
            await self._proceed(prepared)
            nursery.cancel_scope.cancel()

    async def _proceed(self, prepared: CallRequest | Exception) -> None:
        error: Exception | None = None
        reply: Reply | None = None
        try:
            reply = await self._call(prepared)
            if reply is None:
                await self.writer.finish()
                self.status = self.writer.status
        except Exception as caught:  # noqa: BLE001  (as above)
            error = caught
        if self.incoming is not None:
            self.incoming.discard()
        if error is not None:
            if self.call_scope.cancel_called:
                await self._client_left(error)
            reply = self._reply_to(error)
        if reply is not None:
            self.status = reply.status
            await self._answer(reply)
        self.ended = True

    async def _prepare(self) -> CallRequest:
        """Find what is called, and read what there is of the body."""
        head = self.head
        if head.length is not None and head.length > self.limit:
            raise RequestTooBig.known(head.length, int(self.limit))
        self.found = await self.entry.find()
        self.fn_id = self.found.fn.id
        return CallRequest(
            method=head.method,
            url=head.url,
            headers=self.entry.request_headers(head, self.trace),
            body=await self._body(head.length),
        )

    async def _call(self, request: CallRequest | Exception) -> Reply | None:
        """Make the call and run it, or raise why there is none. The reply is that of a detached
        call."""
        if isinstance(request, Exception):
            raise request
        head, found = self.head, self.found
        assert found is not None
        detached = self.entry.is_detached(head)
        options: list[CallOption] = [from_http_fn_request(found.app, found.fn, request)]
        if found.trigger_id:
            options.append(with_trigger(found.trigger_id))
        options.append(invoke_detached() if detached else with_writer(self.writer))
        limit = None if detached else head.time_limit()
        if limit is not None:
            options.append(with_time_limit(limit))
        self.request_id = self._request_id(head.headers)
        if self.request_id:
            options.append(with_request_id(self.request_id))
        call = self.front.agent.get_call(*options)
        self._announce(call)
        await self.front.agent.submit(call)
        return Reply(202, headers=self.writer.own_headers) if detached else None

    def labels(self) -> dict[str, str]:
        """What its log lines say of it."""
        return {
            "call_id": self.call_id,
            "fn_id": self.fn_id,
            "request_id": self.request_id,
            "trace_id": self.trace.trace_id,
        }

    async def _body(self, length: int | None) -> Body:
        """The request's body, in memory if it is small.

        One that still streams ends with the request: an agent has to have read that of a
        detached call before it acknowledges the call.
        """
        incoming = self.incoming
        if incoming is None:
            data = (await self.receive())["body"]
            if len(data) > self.limit:
                raise RequestTooBig
            self.body = CountedBody(data, self.front.bodies)
            return self.body
        whole = length is not None and length <= READ_AHEAD
        await incoming.begin(up_to=READ_AHEAD if whole else 1)
        if incoming.complete:
            self.body = CountedBody(incoming.taken(), self.front.bodies)
        else:
            limit = self.front.config.replay_limit
            self.body = ReplayBody(incoming.stream(), limit, self.front.bodies)
        return self.body

    def _request_id(self, headers: Mapping[str, list[str]]) -> str:
        name = self.front.config.rid_header
        if not name:
            return ""
        values = headers.get(canonical_header(name)) or [""]
        return values[0] if REQUEST_ID.fullmatch(values[0]) else new_id()

    def _announce(self, call: PendingCall) -> None:
        self.call_id = call.model.id
        self.writer.own_headers = [(b"fn-call-id", self.call_id.encode())]

    def _reply_to(self, error: Exception) -> Reply | None:
        """The answer for ``error``; ``None`` if the only answer left is to break off."""
        # A body that failed is the reason, whatever the call made of it on its way here.
        cause = self.incoming and self.incoming.failure
        if isinstance(cause, APIError) and not isinstance(error, ClientCancelled):
            error = cause
        public = public_error(error)
        self.status, self.blame = public.code, public.blame
        if not isinstance(error, APIError | Truncated):
            self._log_internal(error)
        if not self.writer.begun:
            return error_reply(public, self.writer.own_headers)
        log.info(
            "response broken off",
            **self.labels(),
            status=public.code,
            reason=str(error),
        )
        return None

    async def _client_left(self, error: Exception) -> None:
        """The call failed because, or when, the client went: nobody reads an answer."""
        body_failed = self.incoming is not None and self.incoming.failure is not None
        if not isinstance(error, APIError) and not body_failed:
            self._log_internal(error)
        await trio.lowlevel.checkpoint()

    def _log_internal(self, error: Exception) -> None:
        log.error("internal error in a call", **self.labels(), exc_info=error)

    async def _answer(self, reply: Reply) -> None:
        try:
            await reply.send(self.send)
        except OSError:  # the client has gone
            self.call_scope.cancel()
            await trio.lowlevel.checkpoint()
