"""The ASGI application of a node: its routes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from hostler._asgi import ASGIApp, Receive, Reply, Scope, Send, error_reply, json_reply, text_reply
from hostler.abc import CallAgent
from hostler.config import NodeConfig
from hostler.errors import APIError
from hostler.functions import FunctionSource

from ._invoke import Invoker
from ._metrics import FrontMetrics

log = structlog.get_logger(__name__)

_INVOKE = "/invoke/"
_DOCUMENTS = ("/", "/version", "/metrics", "/healthz", "/readyz")

ReadyCheck = Callable[[], bool]


class NodeApp:
    """The routes that every node has, and ``/invoke`` if it is given an `Invoker`.

    =============================  ==========================================================
    ``POST /invoke/{fn_id}``       call a function
    ``GET /``, ``GET /version``    Fn's greeting; the version of hostler
    ``GET /metrics``               Prometheus
    ``GET /healthz``               200 while the process serves
    ``GET /readyz``                200 while it takes calls, else 503 (before start, in a drain)
    =============================  ==========================================================
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        invoker: Invoker | None = None,
        ready: ReadyCheck = lambda: True,
    ) -> None:
        self.registry = registry
        self._invoker = invoker
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        fn_id = path.removeprefix(_INVOKE) if path.startswith(_INVOKE) else ""
        is_invoke = self._invoker is not None and bool(fn_id) and "/" not in fn_id
        if is_invoke and scope["method"] == "POST":
            assert self._invoker is not None
            await self._invoker.invoke(fn_id, scope, receive, send)
        elif is_invoke or path in _DOCUMENTS:
            await self._document(scope).send(send)
        else:
            await self._unknown(scope).send(send)

    def _document(self, scope: Scope) -> Reply:
        path, method = scope["path"], scope["method"]
        if method != "GET" or path.startswith(_INVOKE):
            return error_reply(APIError(405, f"Method not allowed: {method} {path}"))
        if path == "/":
            return json_reply({"goto": "https://github.com/fnproject/fn", "hello": "world!"})
        if path == "/version":
            return json_reply({"version": version("hostler")})
        if path == "/metrics":
            content_type = CONTENT_TYPE_LATEST.encode()
            return Reply(200, generate_latest(self.registry), [(b"content-type", content_type)])
        if path == "/readyz" and not self._ready():
            return text_reply("not ready\n", 503)
        return text_reply("ok\n")

    def _unknown(self, scope: Scope) -> Reply:
        """No such path: a redirect if it is only the trailing slash, else 404."""
        path, method = scope["path"], scope["method"]
        trimmed = path.removesuffix("/")
        fn_id = trimmed.removeprefix(_INVOKE)
        is_invoke = self._invoker is not None and trimmed.startswith(_INVOKE)
        known = trimmed in _DOCUMENTS or (is_invoke and bool(fn_id) and "/" not in fn_id)
        if path != trimmed and trimmed and known:
            # 307 keeps the method and the body; for GET Fn answers with the older 301.
            raw = scope.get("raw_path") or path.encode()
            location = raw.removesuffix(b"/")
            if query := scope["query_string"]:
                location += b"?" + query
            return Reply(301 if method == "GET" else 307, headers=[(b"location", location)])
        return error_reply(APIError(404, f"Path not found: {method} {path}"))


def node_app(
    *, registry: CollectorRegistry | None = None, ready: ReadyCheck = lambda: True
) -> ASGIApp:
    """The application of a node that takes no calls over HTTP, such as a pure runner."""
    return NodeApp(registry or CollectorRegistry(), ready=ready)


def invoke_app(
    agent: CallAgent,
    functions: FunctionSource,
    *,
    config: NodeConfig | None = None,
    registry: CollectorRegistry | None = None,
    ready: ReadyCheck = lambda: True,
) -> ASGIApp:
    """The application of a node that takes calls over HTTP.

    Any ASGI 3 server on Trio can run it; `serve_http` is made for it. Of ``config`` it uses
    ``max_request_size``, ``replay_limit``, ``request_body_read_timeout`` and ``rid_header``.

    A response that can't be completed any more is left without its last message: the server
    has to break the connection then, so that the client sees a truncated body. A client that
    goes away (``http.disconnect``) cancels its call.
    """
    registry = registry or CollectorRegistry()
    metrics = FrontMetrics(registry)
    invoker = Invoker(agent, functions, config or NodeConfig(), metrics)
    return NodeApp(registry, invoker=invoker, ready=ready)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
