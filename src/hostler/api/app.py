"""API application: middleware, counting, naming in logs."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import msgspec
from structlog.contextvars import bound_contextvars

from .._asgi.middleware import Middleware, cors, with_middleware
from .._asgi.replies import Reply, encoded_reply, error_reply, request_id
from .._asgi.request_body import BodyBroken
from .._asgi.types import ASGIApp, Receive, Scope, Send, answer_lifespan, decode_header
from .._spans import PARENT, trace_of
from ..config import NodeConfig
from ..datastore import Datastore
from ..errors import APIError, Blame, ClientCancelled, public_error
from ..metrics import FrontMetrics
from ..rules import Limits
from ..rules.errors import DatastoreUnavailable, InvalidText
from .handlers import Endpoints, routes
from .listeners import Listener, ListeningDatastore
from .openapi import describe
from .request import ApiRequest, BodyLimits, is_json, parse_query
from .routes import Match, Route, Router

PREFIX = "/v2"

RETRY_AFTER_SECONDS = 1
"""``Retry-After`` when the datastore can't be reached."""


def api_app(
    store: Datastore,
    *,
    config: NodeConfig | None = None,
    limits: Limits | None = None,
    middleware: Iterable[Middleware] = (),
    listeners: Iterable[Listener[Any, Any, Any]] = (),
    endpoints: Iterable[Route] = (),
    metrics: FrontMetrics | None = None,
) -> ASGIApp:
    """The API over ``store``: all that is below ``/v2``.

    ``middleware`` sees each request before it is routed, the first one first. ``listeners`` are
    called around the operations on ``store`` (`ListeningDatastore`). ``endpoints`` are further
    routes below ``/v2``; raises `ValueError` for one that is elsewhere, or that is there already.

    Of ``config`` it uses ``public_lb_url``, ``api_cors_origins`` and ``api_cors_headers``, for log
    lines ``rid_header``, and for the bodies of requests ``max_request_size`` and
    ``request_body_read_timeout``, as far as they are below 6 MiB and 30 s.

    ``limits`` are those of ``store``; they are only told, in the description. ``metrics`` count
    the requests that have a route.

    A request that has arrived is carried out, also if its client goes away. A lifespan is
    answered, so that any ASGI 3 server on Trio can run this application by itself.
    """
    config = config or NodeConfig()
    served = [*routes(Endpoints(store, config.public_lb_url)), *map(_checked, endpoints)]
    description = encoded_reply(msgspec.json.encode(describe(served, limits or Limits())))
    served.append(Route("GET", f"{PREFIX}/openapi.json", _always(description)))
    listening = ListeningDatastore(store, listeners)
    app = _Api(Router(served), listening, BodyLimits.of(config), metrics)
    origins = config.api_cors_origins
    first = [cors(origins, config.api_cors_headers)] if origins else []
    return naming(with_middleware(app, [*first, *middleware]), config.rid_header)


def endpoints_app(
    endpoints: Iterable[Route],
    store: Datastore | None = None,
    *,
    config: NodeConfig | None = None,
    metrics: FrontMetrics | None = None,
) -> ASGIApp:
    """``endpoints``, wherever they are, and nothing else.

    Without a ``store`` that of a request has nothing, and says so. Raises `ValueError` for two
    endpoints with the same method and path. The rest is as for `api_app`.
    """
    config = config or NodeConfig()
    limits = BodyLimits.of(config)
    app = _Api(Router(endpoints), store or cast(Datastore, _NoDatastore()), limits, metrics)
    return naming(with_middleware(app, ()), config.rid_header)


class _NoDatastore:
    def __getattr__(self, name: str) -> object:
        raise APIError(500, "This node has no datastore")


class _Api:
    def __init__(
        self,
        router: Router,
        store: Datastore,
        limits: BodyLimits,
        metrics: FrontMetrics | None,
    ) -> None:
        self._router = router
        self._store = store
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close"})
        else:
            try:
                reply = await self._answer(scope, receive)
            except BodyBroken:  # nobody is there to answer
                return
            await reply.send(send)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        found = self._router.find(scope)
        if isinstance(found, Reply):
            return found
        if self._metrics is None:
            return await self._carry_out(found, scope, receive)
        return await self._count(self._metrics, found, scope, receive)

    async def _count(
        self, metrics: FrontMetrics, found: Match, scope: Scope, receive: Receive
    ) -> Reply:
        method, path = found.route.method, found.route.path
        path = _PARAM.sub(r":\1", _REST.sub(r"/*\1", path))
        started_ns, status = time.monotonic_ns(), ClientCancelled.default_code
        metrics.begun(path, method)
        try:
            reply = await self._carry_out(found, scope, receive)
        except Exception as error:
            if not isinstance(error, BodyBroken):
                status = public_error(error).code
            raise
        else:
            status = reply.status
            return reply
        finally:
            blame: Blame = "user" if status < 400 else "service"
            duration_ns = time.monotonic_ns() - started_ns
            metrics.answered((path, method, status, blame, ""), duration_ns)

    async def _carry_out(self, found: Match, scope: Scope, receive: Receive) -> Reply:
        request = await self._request(found, scope, receive)
        try:
            reply: object = await found.route.handler(request)
        except DatastoreUnavailable as error:
            return error_reply(error, [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)])
        if not isinstance(reply, Reply):
            raise TypeError(f"the handler returned a {type(reply).__name__} instead of a Reply")
        return reply

    async def _request(self, found: Match, scope: Scope, receive: Receive) -> ApiRequest:
        query = parse_query(scope["query_string"])
        # Not every database can look for a NUL character, and there is none to be found.
        if "\0" in scope["path"] or any("\0" in value for value in query.values()):
            raise InvalidText.nul("path and query")
        body = await self._limits.read(scope, receive) if found.route.takes_body else b""
        if body and not is_json(scope["headers"]):
            raise APIError(415, "Content-Type must be application/json")
        return ApiRequest(
            scope=scope, params=found.params, store=self._store, body=body, query=query
        )


def _checked(endpoint: Route) -> Route:
    if not endpoint.path.startswith(f"{PREFIX}/"):
        raise ValueError(f"{endpoint.path} is not below {PREFIX}")
    return endpoint


def _always(reply: Reply) -> Callable[[ApiRequest], Awaitable[Reply]]:
    async def handler(_request: ApiRequest) -> Reply:
        return reply

    return handler


_REST = re.compile(r"\{(\w+):path\}", re.ASCII)
_PARAM = re.compile(r"\{(\w+)\}", re.ASCII)
_PARENT = PARENT.lower()


def naming(app: ASGIApp, rid_header: str) -> ASGIApp:
    """``app`` whose log lines have the id of the request, from the header ``rid_header`` ("" = no
    id), and the id of its trace, if it has one."""
    rid_header = rid_header.lower()

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        found: dict[str, list[str]] = {rid_header: [], _PARENT: []}
        for name, value in scope["headers"]:
            if (values := found.get(name.decode("latin-1"))) is not None:
                values.append(decode_header(value))
        labels = {}
        if rid_header:
            labels["request_id"] = request_id(found[rid_header])
        context = trace_of({PARENT: found[_PARENT]})
        if context.parent in found[_PARENT]:
            labels["trace_id"] = context.trace_id
        with bound_contextvars(**labels):
            await app(scope, receive, send)

    return named
