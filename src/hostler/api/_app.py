"""The ASGI application of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from hostler._asgi import (
    ASGIApp,
    BodyBroken,
    Middleware,
    Receive,
    Reply,
    Scope,
    Send,
    answer_lifespan,
    cors,
    encoded_reply,
    error_reply,
    with_middleware,
)
from hostler.config import NodeConfig
from hostler.datastore import Datastore
from hostler.errors import APIError
from hostler.rules import Limits
from hostler.rules.errors import DatastoreUnavailable, InvalidText

from ._apps import app_routes
from ._endpoints import Endpoints
from ._fns import fn_routes
from ._listeners import Listener
from ._listening import ListeningDatastore
from ._metrics import RequestMetrics, counted
from ._naming import naming
from ._openapi import describe
from ._request import ApiRequest, BodyLimits, is_json, parse_query
from ._routes import Match, Route, Router
from ._triggers import trigger_routes

PREFIX = "/v2"
RETRY_AFTER_SECONDS = 1
"""What a client is told to wait when the datastore can't be reached."""


def api_app(
    store: Datastore,
    *,
    config: NodeConfig | None = None,
    limits: Limits | None = None,
    middleware: Iterable[Middleware] = (),
    listeners: Iterable[Listener] = (),
    endpoints: Iterable[Route] = (),
    metrics: RequestMetrics | None = None,
) -> ASGIApp:
    """The API over ``store``: all that is below ``/v2``.

    ``middleware`` sees each request before it is routed, the first one first. ``listeners`` are
    called around the operations on ``store`` (`ListeningDatastore`). ``endpoints`` are further
    routes below ``/v2``; raises `ValueError` for one that is elsewhere, or that is there already.

    Of ``config`` it uses ``public_lb_url``, ``api_cors_origins`` and ``api_cors_headers``, for log
    lines ``rid_header``, and for the bodies of requests ``max_request_size`` and
    ``request_body_read_timeout``, as far as they are below 6 MiB and 30 s.

    ``limits`` are those of ``store``; they are only told, in the description. ``metrics`` count
    the requests that have a route; those of a node are its `hostler.front.FrontMetrics`.

    A request that has arrived is carried out, also if its client goes away. A lifespan is
    answered, so that any ASGI 3 server on Trio can run this application by itself.
    """
    config = config or NodeConfig()
    urls = Endpoints(store, config.public_lb_url)
    routes = [*app_routes(), *fn_routes(urls), *trigger_routes(urls), *map(_checked, endpoints)]
    description = encoded_reply(msgspec.json.encode(describe(routes, limits or Limits())))
    routes.append(Route("GET", f"{PREFIX}/openapi.json", _always(description)))
    listening = ListeningDatastore(store, listeners)
    app = _Api(Router(routes), listening, BodyLimits.of(config), metrics)
    origins = config.api_cors_origins
    first = [cors(origins, config.api_cors_headers)] if origins else []
    return naming(with_middleware(app, [*first, *middleware]), config.rid_header)


class _Api:
    def __init__(
        self,
        router: Router,
        store: Datastore,
        limits: BodyLimits,
        metrics: RequestMetrics | None,
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
        with counted(self._metrics, found.route) as outcome:
            outcome.reply = await self._carry_out(found, scope, receive)
        return outcome.reply

    async def _carry_out(self, found: Match, scope: Scope, receive: Receive) -> Reply:
        request = await self._request(found, scope, receive)
        try:
            return await found.route.handler(request)
        except DatastoreUnavailable as error:
            return error_reply(error, [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)])

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
