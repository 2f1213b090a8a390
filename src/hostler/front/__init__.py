"""The HTTP front end: ASGI applications, and a server for them.

* ``app``: node application: routes, mounts, metrics, readiness
* ``invocation``: one HTTP request becomes one call, and the call's response becomes ASGI
* ``listeners``: listening sockets: bind texts, shared ports
* ``server``: HTTP server: accepts, serves, drains
"""

from .._asgi.access import Access, AccessControl, Hosts, Tokens
from .._asgi.request_body import BodyBroken, BodyTimeout
from .._asgi.types import ASGIApp
from ..metrics import FrontMetrics
from .app import NodeApp, ReadyCheck, invoke_app, node_app, respond
from .invocation import AsgiWriter, ResponseTruncated
from .listeners import address_of, open_listeners, open_shared_listeners, parse_bind, refuse_clients
from .server import HttpServer, ServerStatistics, serve_http

__all__ = [
    "ASGIApp",
    "Access",
    "AccessControl",
    "AsgiWriter",
    "BodyBroken",
    "BodyTimeout",
    "FrontMetrics",
    "Hosts",
    "HttpServer",
    "NodeApp",
    "ReadyCheck",
    "ResponseTruncated",
    "ServerStatistics",
    "Tokens",
    "address_of",
    "invoke_app",
    "node_app",
    "open_listeners",
    "open_shared_listeners",
    "parse_bind",
    "refuse_clients",
    "respond",
    "serve_http",
]
