"""``POST /invoke/{fn_id}``: one HTTP exchange becomes one call."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import attrs
import structlog
import trio

from hostler._asgi import (
    READ_AHEAD,
    Incoming,
    Receive,
    Reply,
    Scope,
    Send,
    decode_header,
    error_reply,
)
from hostler.abc import Body, CallAgent, CallRequest
from hostler.bodies import BytesBody, ReplayBody
from hostler.call import CallOption, PendingCall
from hostler.config import NodeConfig, parse_seconds
from hostler.errors import APIError, Blame, ClientCancelled, RequestTooBig, public_error
from hostler.functions import FunctionSource
from hostler.headers import canonical_header, end_to_end
from hostler.ids import new_id
from hostler.options import (
    from_http_fn_request,
    invoke_detached,
    with_request_id,
    with_time_limit,
    with_writer,
)

from ._metrics import FrontMetrics
from ._writer import AsgiWriter, Truncated

log = structlog.get_logger(__name__)

ROUTE = "/invoke/:fn_id"
CLIENT_GONE = 444
TIME_LIMIT = "Fn-Request-Timeout"
"""Request header: how long the client waits. Hostler's own; Fn does not look at it."""


class Invoker:
    """Runs the exchanges of one front end. Holds no state between them."""

    def __init__(
        self,
        agent: CallAgent,
        functions: FunctionSource,
        config: NodeConfig,
        metrics: FrontMetrics,
    ) -> None:
        self.agent = agent
        self.functions = functions
        self.config = config
        self.metrics = metrics

    async def invoke(self, fn_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one exchange to its end. Only a cancellation from outside leaves it."""
        started_ns = time.monotonic_ns()
        exchange = _Exchange(self, fn_id, scope, receive, send)
        self.metrics.begun(ROUTE, scope["method"])
        gone = False
        async with trio.open_nursery() as nursery:
            with exchange.call_scope:
                nursery.start_soon(exchange.incoming.watch, exchange.call_scope.cancel)
                await exchange.run()
            gone = exchange.call_scope.cancelled_caught
            nursery.cancel_scope.cancel()
        duration_ns = time.monotonic_ns() - started_ns
        if gone:
            exchange.status, exchange.blame = CLIENT_GONE, "service"
            log.info(
                "client cancelled",
                status=CLIENT_GONE,
                call_id=exchange.call_id,
                fn_id=fn_id,
                duration_ms=duration_ns / 1e6,
            )
        self.metrics.answered(
            ROUTE,
            scope["method"],
            status=exchange.status,
            blame=exchange.blame,
            fdk_version=exchange.writer.fdk_version,
            duration_ns=duration_ns,
        )


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, front: Invoker, fn_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.front = front
        self.fn_id = fn_id
        self.scope = scope
        self.send = send
        config = front.config
        self.limit = config.max_request_size or math.inf
        self.incoming = Incoming(
            receive,
            limit=self.limit,
            read_until=trio.current_time() + config.request_body_read_timeout,
        )
        self.call_scope = trio.CancelScope()
        self.writer = AsgiWriter(send, self.call_scope.cancel)
        self.call_id = ""
        self.status = 200
        self.blame: Blame = "user"

    async def run(self) -> None:
        error: Exception | None = None
        try:
            reply = await self._call()
            if reply is None:
                await self.writer.finish()
        except Exception as caught:  # noqa: BLE001  (every failure becomes an answer)
            error, reply = caught, None
        self.incoming.discard()
        if error is not None:
            if self.call_scope.cancel_called:
                await self._client_left(error)
            reply = self._reply_to(error)
        if reply is not None:
            self.status = reply.status
            await self._answer(reply)

    async def _call(self) -> Reply | None:
        """Make the call and run it. The reply is that of a detached call."""
        head = _Head.of(self.scope)
        if head.length is not None and head.length > self.limit:
            raise RequestTooBig.known(head.length, int(self.limit))
        app, fn = await self.front.functions.find(self.fn_id)
        detached = head.headers.get("Fn-Invoke-Type") == ["detached"]
        request = CallRequest(
            method=self.scope["method"],
            url=head.url,
            headers=head.headers,
            body=await self._body(head.length),
        )
        options: list[CallOption] = [from_http_fn_request(app, fn, request)]
        if detached:
            options.append(invoke_detached())
        else:
            options.append(with_writer(self.writer))
        if not detached and TIME_LIMIT in head.headers:
            options.append(with_time_limit(_time_limit(head.headers[TIME_LIMIT])))
        if request_id := self._request_id(head.headers):
            options.append(with_request_id(request_id))
        call = self.front.agent.get_call(*options)
        self._announce(call)
        await self.front.agent.submit(call)
        return Reply(202, headers=self.writer.own_headers) if detached else None

    async def _body(self, length: int | None) -> Body:
        """The request's body, in memory if it is small.

        One that still streams ends with the request: an agent has to have read that of a
        detached call before it acknowledges the call.
        """
        if length is not None and length <= READ_AHEAD:
            await self.incoming.gather()
        else:
            await self.incoming.gather(up_to=1)
        if self.incoming.complete:
            return BytesBody(self.incoming.taken())
        return ReplayBody(self.incoming.stream(), self.front.config.replay_limit)

    def _request_id(self, headers: Mapping[str, list[str]]) -> str:
        name = self.front.config.rid_header
        if not name:
            return ""
        values = headers.get(canonical_header(name)) or [""]
        return values[0] or new_id()

    def _announce(self, call: PendingCall) -> None:
        self.call_id = call.model.id
        self.writer.own_headers = [(b"fn-call-id", self.call_id.encode())]

    def _reply_to(self, error: Exception) -> Reply | None:
        """The answer for ``error``; ``None`` if the only answer left is to break off."""
        # A body that failed is the reason, whatever the call made of it on its way here.
        cause = self.incoming.failure
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
            call_id=self.call_id,
            fn_id=self.fn_id,
            status=public.code,
            reason=str(error),
        )
        return None

    async def _client_left(self, error: Exception) -> None:
        """The call failed because, or when, the client went: nobody reads an answer."""
        if not isinstance(error, APIError) and self.incoming.failure is None:
            self._log_internal(error)
        await trio.lowlevel.checkpoint()

    def _log_internal(self, error: Exception) -> None:
        log.error(
            "internal error in a call", call_id=self.call_id, fn_id=self.fn_id, exc_info=error
        )

    async def _answer(self, reply: Reply) -> None:
        try:
            await reply.send(self.send)
        except OSError:  # the client has gone
            self.call_scope.cancel()
            await trio.lowlevel.checkpoint()


@attrs.frozen
class _Head:
    """A request head in the form that calls have."""

    url: str
    headers: dict[str, list[str]]
    """Canonical names; without those of the connection."""
    length: int | None
    """Bytes of the body, ``None`` = not declared."""

    @classmethod
    def of(cls, scope: Scope) -> _Head:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            key = canonical_header(name.decode("latin-1"))
            headers.setdefault(key, []).append(decode_header(value))
        length = headers.get("Content-Length")
        if length is None and "Transfer-Encoding" not in headers and _is_http1(scope):
            declared: int | None = 0
        else:
            declared = int(length[0]) if length and length[0].isdecimal() else None
        return cls(_url(scope, headers), end_to_end(headers), declared)


def _time_limit(values: list[str]) -> float:
    """Seconds. Raises a 400 `APIError` for what is none."""
    try:
        (text,) = values
        return parse_seconds(text.strip())
    except ValueError:
        takes = "takes whole seconds or a duration such as 1m30s or 300ms"
        raise APIError(400, f"invalid {TIME_LIMIT} {', '.join(values)!r}: {takes}") from None


def _is_http1(scope: Scope) -> bool:
    return str(scope["http_version"]).startswith("1")


def _url(scope: Scope, headers: Mapping[str, list[str]]) -> str:
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    target = (path + b"?" + query if query else path).decode("latin-1")
    host = (headers.get("Host") or [""])[0]
    return f"{scope['scheme']}://{host}{target}" if host else target
