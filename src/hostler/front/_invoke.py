"""One HTTP exchange becomes one call, whichever way it came in."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable

import structlog
import trio

from hostler._asgi import (
    READ_AHEAD,
    Incoming,
    Outgoing,
    OwnServer,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    own_server,
    request_id,
)
from hostler._spans import TraceContext, trace_of
from hostler.abc import Body, CallAgent, CallRequest
from hostler.bodies import BodyBudget, CountedBody, ReplayBody
from hostler.call import CallOption, PendingCall
from hostler.config import NodeConfig
from hostler.errors import (
    APIError,
    Blame,
    ClientCancelled,
    RequestTooBig,
    ServerBusy,
    public_error,
)
from hostler.headers import canonical_header
from hostler.options import (
    from_http_fn_request,
    invoke_detached,
    with_request_id,
    with_time_limit,
    with_trigger,
    with_writer,
)

from ..metrics import FrontMetrics
from ._entries import Found, Way
from ._writer import Answer, AsgiWriter, Truncated

log = structlog.get_logger(__name__)

CLIENT_GONE = 444
LAST_ANSWER_SECONDS = 1.0
"""In which a client has to take the answer to a call that ended with its agent."""


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
        self.limit = config.max_request_size or math.inf
        """The greatest body in bytes."""
        self.request_id_header = canonical_header(config.rid_header)

    def run(self, way: Way, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run one exchange to its end. Only a cancellation from outside leaves it, or that of the
        connection's scope, if there is one, when the client goes."""
        server = own_server(scope)
        # Who has put something of its own in between wants to see what passes.
        body = server.body if server and receive == server.receive else None
        answer = server.answer if server and send == server.send else None
        return self._run(_Exchange(self, way, receive, send, server, body, answer))

    def serve(self, way: Way, server: OwnServer) -> Awaitable[None]:
        """The same of hostler's own server, with nobody in between."""
        return self._run(
            _Exchange(self, way, server.receive, server.send, server, server.body, server.answer)
        )

    async def _run(self, exchange: _Exchange) -> None:
        started_ns = time.monotonic_ns()
        route, method = exchange.way.entry.route, exchange.head.method
        self.metrics.begun(route, method)
        try:
            if exchange.incoming is None:
                await exchange.proceed()
            else:
                with exchange.call_scope:
                    await exchange.run(exchange.incoming)
        finally:
            if not exchange.ended and exchange.cancelled and not exchange.writer.gone:
                await exchange.answer_for_agent()
            if exchange.ended or exchange.cancelled:
                self._account(exchange, route, method, started_ns)
            await exchange.aclose()

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
            exchange.status,
            exchange.blame,
            exchange.writer.fdk_version,
            duration_ns,
        )


class _Exchange:
    """One request and its answer."""

    body: Body | None = None
    found: Found | None = None
    detached = False
    call: PendingCall | None = None
    error: Exception | None = None
    """That of the call, if it ended with its scope: it is logged, and not answered yet."""
    call_id = ""
    fn_id = ""
    request_id = ""
    ended = False
    """The answer is complete: a client that goes from now on has it."""
    status = 200
    blame: Blame = "user"

    def __init__(
        self,
        front: Invoker,
        way: Way,
        receive: Receive,
        send: Send,
        server: OwnServer | None,
        body: bytes | None,
        answer: Answer | None,
    ) -> None:
        self.front = front
        self.way = way
        self.head = head = way.head
        self.trace: TraceContext = trace_of(head.headers)
        self.send = send
        self.server = server
        self.whole_body = body
        self.incoming: Incoming | None = None
        """``None`` if the body is here whole, and the server tells of a client that goes."""
        lent = server.connection_scope if server is not None and body is not None else None
        # (A body that turns out to be bad ends the call, too, but not the connection.)
        self.call_scope = lent or trio.CancelScope()
        """Cancelled when the client goes, or by the agent that it is lent to."""
        outgoing = Outgoing(send) if lent is None else None
        self.writer = AsgiWriter(
            outgoing.send if outgoing else send,
            self.call_scope.cancel,
            answer,
            way.response_head,
            head.method == "HEAD",
        )
        if outgoing is not None:
            self.incoming = Incoming(
                receive,
                self.writer.note_gone,
                outgoing,
                front.bodies,
                limit=front.limit,
                read_until=trio.current_time() + front.config.request_body_read_timeout,
            )
        if server is not None:
            server.tell_gone(self.writer.note_gone)

    async def run(self, incoming: Incoming) -> None:
        """The exchange, while the rest of the body comes in."""
        prepared: CallRequest | Exception
        try:
            prepared = await self._prepare()
        except Exception as error:  # noqa: BLE001  (every failure becomes an answer)
            prepared = error
        if self.server is not None and (incoming.complete or isinstance(prepared, Exception)):
            await self.proceed(prepared)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(incoming.watch)
            await self.proceed(prepared)
            nursery.cancel_scope.cancel()

    async def proceed(self, prepared: CallRequest | Exception | None = None) -> None:
        """The exchange, as far as it is not yet prepared."""
        error: Exception | None = None
        reply: Reply | None = None
        try:
            if prepared is None:
                prepared = await self._prepare()
            call = self._make_call(prepared)
            await self.front.agent.submit(call)
            self._discard()
            if self.detached:
                reply = Reply(202, headers=self.writer.own_headers)
            else:
                await self.writer.finish()
                self.status = self.writer.status
        except Exception as caught:  # noqa: BLE001  (as above)
            error = caught
            self._discard()
        if error is not None:
            if self.call_scope.cancel_called:
                await self._client_left(error)
            reply = self._reply_to(error)
        if reply is not None:
            self.status = reply.status
            await self._answer(reply)
        self.ended = True

    @property
    def cancelled(self) -> bool:
        """By its client that goes, its agent, or the server, each of which ends. (What else cancels
        it is not known here.)"""
        server = self.server
        return self.call_scope.cancel_called or (
            server is not None and server.connection_scope.cancel_called
        )

    def _discard(self) -> None:
        """Nobody wants the rest of the body: the client may send it all before it reads."""
        if self.incoming is not None:
            self.incoming.discard()

    async def aclose(self) -> None:
        """Give back what is kept of the body."""
        self._discard()
        if self.body is not None:  # it may have a file, on a disk that is slow
            await self.body.aclose()

    async def answer_for_agent(self) -> None:
        """The agent or the server has ended, and with it the call and the connection's scope, but
        the client is there. Bounded: that scope has no say any more."""
        with trio.move_on_after(LAST_ANSWER_SECONDS, shield=True):
            error = ServerBusy() if self.call is None else self.call.cut_error()
            reply = self._reply_to(self.error or error)
            if reply is not None:
                reply.headers.append((b"connection", b"close"))
                self.status = reply.status
                await self._answer(reply)
            self.ended = not self.writer.gone

    async def _prepare(self) -> CallRequest:
        """Find what is called, and read what there is of the body."""
        head = self.head
        if head.length is not None and head.length > self.front.limit:
            raise RequestTooBig.known(head.length, int(self.front.limit))
        entry = self.way.entry
        self.found = await entry.find()
        self.fn_id = self.found.fn.id
        if self.incoming is None:
            self.body = self._counted(self.whole_body or b"")
        else:
            self.body = await self._body(self.incoming, head.length)
        headers = entry.request_headers(head, self.trace)
        return CallRequest(head.method, head.url, headers, self.body)

    def _make_call(self, request: CallRequest | Exception) -> PendingCall:
        """Raises why there is none."""
        if isinstance(request, Exception):
            raise request
        head, found = self.head, self.found
        assert found is not None
        options: list[CallOption] = [from_http_fn_request(found.app, found.fn, request)]
        if found.trigger_id:
            options.append(with_trigger(found.trigger_id))
        self.detached = self.way.detached
        if self.detached:
            options.append(invoke_detached())
        else:
            options.append(with_writer(self.writer))
            if (limit := head.time_limit()) is not None:
                options.append(with_time_limit(limit))
        if self.front.request_id_header:
            self.request_id = request_id(head.headers.get(self.front.request_id_header))
            options.append(with_request_id(self.request_id))
        self.call = call = self.front.agent.get_call(*options)
        if self.incoming is None:
            call.scope = self.call_scope
        self.call_id = self.writer.call_id = call.model.id
        return call

    def labels(self) -> dict[str, str]:
        """What its log lines say of it."""
        return {
            "call_id": self.call_id,
            "fn_id": self.fn_id,
            "request_id": self.request_id,
            "trace_id": self.trace.trace_id,
        }

    def _counted(self, data: bytes) -> Body:
        if len(data) > self.front.limit:
            raise RequestTooBig
        return CountedBody(data, self.front.bodies)

    async def _body(self, incoming: Incoming, length: int | None) -> Body:
        """The request's body, in memory if it is small.

        One that still streams ends with the request: an agent has to have read that of a
        detached call before it acknowledges the call.
        """
        whole = length is not None and length <= READ_AHEAD
        await incoming.begin(up_to=READ_AHEAD if whole else 1)
        if incoming.complete:
            return CountedBody(incoming.taken(), self.front.bodies)
        return ReplayBody(incoming.stream(), self.front.config.replay_limit, self.front.bodies)

    def _reply_to(self, error: Exception) -> Reply | None:
        """The answer for ``error``; ``None`` if the only answer left is to break off."""
        # A body that failed is the reason, whatever the call made of it on its way here.
        cause = self.incoming and self.incoming.failure
        if isinstance(cause, APIError) and not isinstance(error, ClientCancelled):
            error = cause
        public = public_error(error)
        self.status, self.blame = public.code, public.blame
        if error is not self.error:
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
        """The call failed because, or when, the client went, or its agent: there is no answer, or
        `answer_for_agent` gives it."""
        self.error = error
        if self.incoming is None or self.incoming.failure is None:
            self._log_internal(error)
        await trio.lowlevel.checkpoint()

    def _log_internal(self, error: Exception) -> None:
        if not isinstance(error, APIError | Truncated):
            log.error("internal error in a call", **self.labels(), exc_info=error)

    async def _answer(self, reply: Reply) -> None:
        try:
            await reply.send(self.send)
        except OSError:
            self.writer.note_gone()
            await trio.lowlevel.checkpoint()
