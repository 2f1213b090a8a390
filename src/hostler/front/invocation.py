"""Invocation: one HTTP request becomes one call, and the call's response becomes ASGI."""

from __future__ import annotations

import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, NamedTuple, NoReturn

import attrs
import msgspec
import structlog
import trio

from .._asgi.replies import Reply, error_reply, request_id
from .._asgi.request_body import READ_AHEAD, CallBodyLimits, Outgoing, RequestBody
from .._asgi.types import (
    OwnServer,
    RawHeader,
    RawHeaders,
    Receive,
    Scope,
    Send,
    decode_header,
    own_server,
)
from .._fast import FastWriter
from .._spans import PARENT, STATE, TraceContext, trace_of
from ..abc import Body, CallAgent, CallRequest, ResponseWriter
from ..bodies import BodyBudget, CountedBody, ReplayBody
from ..calls import CallOption, PendingCall
from ..config import NodeConfig, parse_seconds
from ..errors import (
    APIError,
    Blame,
    ClientCancelled,
    FunctionInvalidResponse,
    FunctionResponseError,
    HostlerError,
    RequestTooBig,
    ServerBusy,
    is_internal,
    public_error,
)
from ..functions import FunctionSource, TriggerSource
from ..headers import (
    HOP_BY_HOP,
    TOKEN,
    canonical_header,
    end_to_end,
    end_to_end_pairs,
    have_secret,
)
from ..metrics import FrontMetrics
from ..models import App, Fn
from ..options import (
    from_http_fn_request,
    invoke_detached,
    with_request_id,
    with_time_limit,
    with_trigger,
    with_writer,
)
from ..protocol import Headers

TIME_LIMIT = "Fn-Request-Timeout"
"""Request header: how long the client waits. Hostler's own; Fn does not look at it."""


@attrs.frozen
class Head:
    """What the front end wants to know of a request before its body."""

    method: str
    url: str
    """Absolute, with the query; without a ``Host`` only the path."""
    headers: dict[str, list[str]]
    """Canonical names; without those of the connection."""
    length: int | None
    """Bytes of the body, ``None`` = not declared."""

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """Nobody may change what it has: the next request may get the same."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            key = canonical_header(name.decode("latin-1"))
            headers.setdefault(key, []).append(decode_header(value))
        length = headers.get("Content-Length")
        if length is None and "Transfer-Encoding" not in headers and _is_http1(scope):
            declared: int | None = 0
        else:
            declared = int(length[0]) if length and length[0].isdecimal() else None
        return cls(scope["method"], _url(scope, headers), end_to_end(headers), declared)

    def time_limit(self) -> float | None:
        """Seconds that the client waits, ``None`` = does not say. Raises a 400 `APIError` for
        what is no time."""
        values = self.headers.get(TIME_LIMIT)
        if values is None:
            return None
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


_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""RFC 9110, section 5.5: what no header may contain would split the response."""

_BODILESS = (204, 304)

ResponseHead = Callable[[int, Headers], tuple[int, Headers]]
Answer = Callable[[int, RawHeaders, bytes, tuple[RawHeader, ...]], Awaitable[None]]


class ResponseTruncated(HostlerError):
    """The response ended before it was complete, after its head had been sent."""


class AsgiWriter(ResponseWriter, FastWriter):
    """Sends a function's response on as it comes.

    The head is held back until the first byte of the body or the end of the call. So a call
    that fails before that gets a clean error answer, with none of the function's headers. After
    it an error can only be shown by leaving the response incomplete (`begun` tells).

    The bytes that complete a body of known length are held back until the call has ended, too: a
    client that has them all may leave at once, and must not be taken for one that cancels.

    ``call_id`` is added to the function's headers, of which one with its name is dropped.
    ``scope`` is that of the call: cancelled when the client turns out to be gone (here, or by
    `note_gone`).
    ``answer`` sends a whole response, if the server can do that in one step (`OwnServer`).
    ``response_head`` makes the client's head of the function's. ``head_only`` is for a request
    whose response has no body (HEAD), whatever length it tells.
    """

    status = 0
    """The status that the client gets, 0 before there is one."""
    begun = False
    """The head was handed to the server: no other answer is possible any more."""
    gone = False
    """The client has left."""
    fdk_version = ""
    call_id = ""
    _remaining: int | None = None
    _last = b""

    def __init__(
        self,
        send: Send,
        scope: trio.CancelScope,
        answer: Answer | None = None,
        response_head: ResponseHead | None = None,
        head_only: bool = False,
    ) -> None:
        self._send = send
        self._scope = scope
        self._answer = answer
        self._response_head = response_head
        self._bodiless = head_only
        self._fields: tuple[RawHeader, ...] = ()

    async def start(self, status: int, headers: Headers) -> None:
        """Never waits. Raises `FunctionInvalidResponse` for headers that HTTP does not allow, and
        `HostlerError` for a second head and a status outside of 200 to 599."""
        # Nothing waits here: `write` or `finish`, which comes next, is a point of cancellation.
        self.start_now(status, headers)

    def start_now(self, status: int, headers: Headers) -> bool:
        if self.status:
            raise HostlerError("the response was started twice")
        if not 200 <= status <= 599:
            raise HostlerError(f"a response can't have the status {status}")
        if self._response_head is not None:
            self.fdk_version = _fdk_version(headers)
            status, headers = self._response_head(status, headers)
        head = _known.get(key := tuple(headers)) or _remember(key, _made(headers))
        self._bodiless = self._bodiless or status in _BODILESS
        self._fields = head.fields
        self._remaining = head.length
        if status == 204 and head.length is not None:  # must not tell it (RFC 9110, section 8.6)
            self._fields = head.fields[:-1]
        if self._response_head is None:
            self.fdk_version = head.fdk_version
        self.status = status
        return True

    async def write(self, data: bytes | memoryview) -> None:
        """Waits while the client takes nothing. Raises `FunctionResponseError` for more bytes than
        ``Content-Length`` promised, `ClientCancelled` if the client has gone, and `HostlerError`
        before `start`."""
        if not self.status:
            raise HostlerError("the body of a response came before its head")
        if not data or self._bodiless:
            await trio.lowlevel.checkpoint()
            return
        if self.write_now(data):
            return
        if self._remaining is not None:
            if len(data) > self._remaining:
                raise FunctionResponseError()
            self._remaining -= len(data)
        await self._begin()
        await self._pass({"type": "http.response.body", "body": bytes(data), "more_body": True})

    def write_now(self, data: bytes | memoryview) -> bool:
        if not data or self._bodiless or len(data) != self._remaining:
            return False
        self._remaining = 0
        self._last = bytes(data)
        return True

    async def finish(self) -> None:
        """The call succeeded: complete the response. Waits as `write` does.

        Raises `HostlerError` if it was never started, `FunctionResponseError` if it is too short
        and nothing was sent yet, `ResponseTruncated` if it is too short and something was,
        `ClientCancelled` if the client has gone.
        """
        if not self.status:
            raise HostlerError("the call ended without a response")
        if self._remaining and not self._bodiless:
            raise (
                ResponseTruncated("the body is too short")
                if self.begun
                else FunctionResponseError()
            )
        if not self.begun and self._remaining is None and not self._bodiless:
            self._fields = (*self._fields, (b"content-length", b"0"))
        if self.begun or self._answer is None:
            await self._begin()
            await self._pass({"type": "http.response.body", "body": self._last})
            return
        self.begun = True
        try:
            await self._answer(self.status, self.own_headers, self._last, self._fields)
        except OSError as error:
            await self._left(error)

    async def _begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        headers = [*self.own_headers, *self._fields]
        await self._pass({"type": "http.response.start", "status": self.status, "headers": headers})

    async def _pass(self, message: dict[str, object]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            await self._left(error)

    def note_gone(self) -> None:
        """The client has left: sets `gone` and cancels the call. Synchronous."""
        self.gone = True
        self._scope.cancel()

    async def _left(self, error: OSError) -> NoReturn:
        """``error`` is what servers raise for a client that has gone."""
        self.note_gone()
        await trio.lowlevel.checkpoint()
        raise ClientCancelled() from error

    @property
    def own_headers(self) -> RawHeaders:
        """Those of hostler itself, which errors have too: ``Fn-Call-Id`` once the call has an
        id."""
        return [(b"fn-call-id", self.call_id.encode())] if self.call_id else []


class _Head(NamedTuple):
    """A function's headers, checked, and as the client gets them."""

    fields: tuple[RawHeader, ...]
    """The length is the last."""
    length: int | None
    fdk_version: str


_MAX_KNOWN, _MAX_KNOWN_SIZE = 512, 1024

_known: dict[Headers, _Head] = {}
"""Most answers of a function have the same."""


def _remember(headers: Headers, head: _Head) -> _Head:
    size = sum(len(name) + len(value) for name, value in headers)
    if size <= _MAX_KNOWN_SIZE and not have_secret(headers):
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[headers] = head
    return head


def _made(headers: Headers) -> _Head:
    """Raises `FunctionInvalidResponse`."""
    fields: RawHeaders = []
    lengths: set[str] = set()
    for name, value in _end_to_end(headers):
        if not (TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise FunctionInvalidResponse()
        name = name.lower()
        if name == "content-length":
            lengths.add(value.strip())
        elif name != "fn-call-id":
            fields.append((name.encode("utf-8"), value.encode("utf-8")))
    length = _length(lengths)
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return _Head(tuple(fields), length, _fdk_version(headers))


def _end_to_end(headers: Headers) -> Headers:
    """``headers`` without what is about one connection only."""
    if any(canonical_header(name) in HOP_BY_HOP for name, _ in headers):
        return end_to_end_pairs(headers)  # it may name others
    return headers


def _fdk_version(headers: Headers) -> str:
    return next((value for name, value in headers if name.lower() == "fn-fdk-version"), "")


def _length(values: set[str]) -> int | None:
    if not values:
        return None
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise FunctionInvalidResponse()
    return int(value)


PREFIX = "Fn-Http-H-"
"""Marks the headers of a function's own HTTP exchange, apart from those of its call."""

STATUS = "Fn-Http-Status"

LEAST_STATUS, GREATEST_STATUS = 200, 999
"""What a function may answer: any final status that has three digits (RFC 9110, section 15)."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class CallTarget(msgspec.Struct, frozen=True):
    """What a request calls."""

    app: App
    fn: Fn
    trigger_id: str = ""


class CallRoute(ABC):
    """One request's way in. ``route`` is its name in the metrics."""

    route: ClassVar[str]

    @abstractmethod
    async def find(self) -> CallTarget:
        """Look up what is called. Raises `APIError`."""

    @abstractmethod
    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        """The headers that the function gets."""

    @property
    def response_head(self) -> ResponseHead | None:
        """Makes the head that the client gets of the function's; ``None`` = it is the same. Raises
        `FunctionInvalidResponse`."""
        return None

    def is_detached(self, head: Head) -> bool:
        return False


class CallPath(msgspec.Struct, frozen=True):
    """How a request gets to its function: the same for all requests with the same head."""

    entry: CallRoute
    head: Head
    detached: bool
    response_head: ResponseHead | None

    @classmethod
    def of(cls, entry: CallRoute, head: Head) -> CallPath:
        return cls(entry, head, entry.is_detached(head), entry.response_head)


def headers_of(head: Head, trace: TraceContext) -> dict[str, list[str]]:
    """The request's headers as they are, with those of ``trace``."""
    # Lists of its own: a call overrider may change them, other requests have the same head.
    headers = {name: [*values] for name, values in head.headers.items()}
    headers.pop(STATE, None)
    headers.update(trace.headers())
    return headers


class InvokeEntry(CallRoute):
    """``POST /invoke/{fn_id}``: headers are passed on as they are, both ways."""

    route = "/invoke/:fn_id"

    def __init__(self, functions: FunctionSource, fn_id: str) -> None:
        self._functions = functions
        self._fn_id = fn_id

    async def find(self) -> CallTarget:
        app, fn = await self._functions.find(self._fn_id)
        return CallTarget(app, fn)

    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        return headers_of(head, trace)

    def is_detached(self, head: Head) -> bool:
        return head.headers.get("Fn-Invoke-Type") == ["detached"]


class GivenEntry(CallRoute):
    """A request whose function the program has chosen (`hostler.front.respond`)."""

    route = "respond"

    def __init__(self, app: App, fn: Fn, *, detached: bool) -> None:
        self._target = CallTarget(app, fn)
        self._detached = detached

    async def find(self) -> CallTarget:
        return self._target

    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        return headers_of(head, trace)

    def is_detached(self, head: Head) -> bool:
        return self._detached


class TriggerEntry(CallRoute):
    """``/t/{app}/{source}``: the function sees the client's request as a request of its own.

    Its headers get a prefix on their way in and lose it on their way out, so that a client can't
    set the headers of the call, nor a function those of the connection. A trace's headers are
    there both ways: for the function's kit, and for its code.
    """

    def __init__(self, triggers: TriggerSource, app_name: str, source: str, method: str) -> None:
        self._triggers = triggers
        self._app_name = app_name
        self._source = source
        self._method = method

    route = "/t/:app_name/*trigger_source"

    async def find(self) -> CallTarget:
        app, fn, trigger = await self._triggers.find_trigger(self._app_name, self._source)
        return CallTarget(app, fn, trigger.id)

    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        own = {
            name: [*values]  # as above
            for name, values in head.headers.items()
            if name not in (PARENT, STATE)
        }
        own.update(trace.headers())
        own.pop("Host", None)  # it is in the URL
        content_type = own.pop("Content-Type", None)
        headers = {PREFIX + name: values for name, values in own.items()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        headers["Fn-Http-Method"] = [head.method]
        headers["Fn-Http-Request-Url"] = [head.url]
        headers["Fn-Intent"] = ["httprequest"]
        return {**headers, **trace.headers()}

    @property
    def response_head(self) -> ResponseHead:
        return self._response_head

    def _response_head(self, status: int, headers: Headers) -> tuple[int, Headers]:
        named = [(canonical_header(name), value) for name, value in headers]
        kept = [
            (canonical_header(name.removeprefix(PREFIX)), value)
            for name, value in named
            if name.startswith(PREFIX) and name != PREFIX
        ]
        names = {name for name, _ in kept}
        status = _status(named)
        for name, value in named:
            is_type = name == "Content-Type" and name not in names
            # The length of this message, which the function's own has to agree with; but that
            # of a response without a body is about another message.
            is_length = name == "Content-Length" and not (self._method == "HEAD" or status == 304)
            if is_type or is_length:
                kept.append((name, value))
        return status, kept


def _status(headers: list[tuple[str, str]]) -> int:
    """The status that the function has chosen; 200 if it has not, or if it is no number."""
    text = next((value for name, value in headers if name == STATUS), "")
    status = int(text) if _INTEGER.fullmatch(text) else 0
    if status <= 0:
        return 200
    if not LEAST_STATUS <= status <= GREATEST_STATUS:
        raise FunctionInvalidResponse()
    return status


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
        timeout = config.request_body_read_timeout
        self.body_limits = CallBodyLimits(self.limit, timeout, bodies)
        self.request_id_header = canonical_header(config.rid_header)

    def run(self, way: CallPath, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run one exchange to its end. Only a cancellation from outside leaves it, or that of the
        connection's scope, if there is one, when the client goes."""
        return Invocation(self, way, receive, send, own_server(scope)).run()

    def serve(self, way: CallPath, server: OwnServer) -> Awaitable[None]:
        """The same of hostler's own server, with nobody in between."""
        return Invocation(self, way, server.receive, server.send, server).run()


class Invocation:
    """One request and its answer."""

    body: Body | None = None
    found: CallTarget | None = None
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
        way: CallPath,
        receive: Receive,
        send: Send,
        server: OwnServer | None,
    ) -> None:
        # Who has put something of its own in between wants to see what passes.
        body = server.body if server and receive == server.receive else None
        answer = server.answer if server and send == server.send else None
        self.front = front
        self.way = way
        self.head = head = way.head
        self.trace: TraceContext = trace_of(head.headers)
        self.send = send
        self.server = server
        self.whole_body = body
        self.incoming: RequestBody | None = None
        """``None`` if the body is here whole, and the server tells of a client that goes."""
        lent = server.connection_scope if server is not None and body is not None else None
        # (A body that turns out to be bad ends the call, too, but not the connection.)
        self.call_scope = lent or trio.CancelScope()
        """Cancelled when the client goes, or by the agent that it is lent to."""
        outgoing = Outgoing(send) if lent is None else None
        self.writer = AsgiWriter(
            outgoing.send if outgoing else send,
            self.call_scope,
            answer,
            way.response_head,
            head.method == "HEAD",
        )
        if outgoing is not None:
            self.incoming = RequestBody(
                receive,
                self.writer,
                outgoing,
                front.body_limits,
            )
        if server is not None:
            server.tell_gone(self.writer)

    async def run(self) -> None:
        """Run the exchange to its end. Only a cancellation from outside leaves it, or that of the
        connection's scope, if there is one, when the client goes."""
        started_ns = time.monotonic_ns()
        self.front.metrics.begun(self.way.entry.route, self.head.method)
        try:
            if self.incoming is None:
                try:
                    request = await self._prepare()
                    await self.front.agent.submit(self._make_call(request))
                    await self._complete()
                except Exception as error:  # noqa: BLE001  (every failure becomes an answer)
                    await self._fail(error)
                self.ended = True
            else:
                with self.call_scope:
                    await self._run_streamed(self.incoming)
        finally:
            if not self.ended and self.cancelled and not self.writer.gone:
                await self._answer_for_agent()
            if self.ended or self.cancelled:
                self._account(time.monotonic_ns() - started_ns)
            # It may have a file, on a disk that is slow.
            self._discard()
            if self.body is not None:
                await self.body.aclose()

    async def _run_streamed(self, incoming: RequestBody) -> None:
        """The exchange, while the rest of the body comes in."""
        prepared: CallRequest | Exception
        try:
            prepared = await self._prepare()
        except Exception as error:  # noqa: BLE001  (as above)
            prepared = error
        if self.server is not None and (incoming.complete or isinstance(prepared, Exception)):
            await self._proceed(prepared)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(incoming.watch)
            await self._proceed(prepared)
            nursery.cancel_scope.cancel()

    async def _proceed(self, prepared: CallRequest | Exception) -> None:
        if isinstance(prepared, Exception):
            await self._fail(prepared)
        else:
            try:
                await self.front.agent.submit(self._make_call(prepared))
                await self._complete()
            except Exception as error:  # noqa: BLE001  (as above)
                await self._fail(error)
        self.ended = True

    async def _complete(self) -> None:
        """The call succeeded: complete its answer."""
        self._discard()
        if self.detached:
            self.status = 202
            await self._answer(Reply(202, headers=self.writer.own_headers))
        else:
            await self.writer.finish()
            self.status = self.writer.status

    async def _fail(self, error: Exception) -> None:
        """There is no call, or it failed, or its answer did."""
        self._discard()
        if self.call_scope.cancel_called:
            await self._client_left(error)
        if (reply := self._reply_to(error)) is not None:
            self.status = reply.status
            await self._answer(reply)

    def _account(self, duration_ns: int) -> None:
        if not self.ended:
            self.status, self.blame = CLIENT_GONE, "service"
            log.info(
                "client cancelled",
                status=CLIENT_GONE,
                **self.labels(),
                duration_ms=duration_ns / 1e6,
            )
        route, method, version = self.way.entry.route, self.head.method, self.writer.fdk_version
        self.front.metrics.answered((route, method, self.status, self.blame, version), duration_ns)

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

    async def _answer_for_agent(self) -> None:
        """The agent or the server has ended, and with it the call and the connection's scope, but
        the client is there. Bounded: that scope has no say any more."""
        with trio.move_on_after(LAST_ANSWER_SECONDS, shield=True):
            error = ServerBusy() if self.call is None else self.call.cancelled_error()
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

    def _make_call(self, request: CallRequest) -> PendingCall:
        """Raises `APIError`."""
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

    async def _body(self, incoming: RequestBody, length: int | None) -> Body:
        """The request's body, in memory if it is small.

        One that still streams ends with the request: an agent has to have read that of a
        detached call before it acknowledges the call.
        """
        whole = length is not None and length <= READ_AHEAD
        await incoming.begin(up_to=READ_AHEAD if whole else 1)
        if incoming.complete:
            return CountedBody(incoming.taken(), self.front.bodies)
        return ReplayBody(incoming, self.front.config.replay_limit, self.front.bodies)

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
        `_answer_for_agent` gives it."""
        self.error = error
        if self.incoming is None or self.incoming.failure is None:
            self._log_internal(error)
        await trio.lowlevel.checkpoint()

    def _log_internal(self, error: Exception) -> None:
        if is_internal(error) and not isinstance(error, ResponseTruncated):
            log.error("internal error in a call", **self.labels(), exc_info=error)

    async def _answer(self, reply: Reply) -> None:
        try:
            await reply.send(self.send)
        except OSError:
            self.writer.note_gone()
            await trio.lowlevel.checkpoint()
