"""The HTTP front end: ASGI applications, and a server for them."""

from hostler._asgi import (
    Access,
    ASGIApp,
    BodyBroken,
    BodyTimeout,
    GuardedApp,
    Hosts,
    Tokens,
)

from ..metrics import FrontMetrics
from ._app import NodeApp, ReadyCheck, invoke_app, node_app
from ._listen import (
    address_of,
    open_listeners,
    open_shared_listeners,
    parse_bind,
    refuse_clients,
)
from ._server import HttpServer, ServerStatistics, serve_http
from ._writer import AsgiWriter, Truncated

__all__ = [
    "ASGIApp",
    "Access",
    "AsgiWriter",
    "BodyBroken",
    "BodyTimeout",
    "FrontMetrics",
    "GuardedApp",
    "Hosts",
    "HttpServer",
    "NodeApp",
    "ReadyCheck",
    "ServerStatistics",
    "Tokens",
    "Truncated",
    "address_of",
    "invoke_app",
    "node_app",
    "open_listeners",
    "open_shared_listeners",
    "parse_bind",
    "refuse_clients",
    "serve_http",
]
