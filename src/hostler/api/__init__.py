"""The API of apps, functions and triggers over HTTP: what is below ``/v2``.

`api_app` makes the application. `Listener`, `Middleware` and `Route` are what a program can add
to it; docs/reference/api.md has an example.
"""

from hostler._asgi import Middleware, Reply, cors, error_reply, json_reply, with_middleware

from ._app import PREFIX, api_app
from ._listeners import AppListener, FnListener, Listener, TriggerListener
from ._listening import ListeningDatastore
from ._metrics import RequestMetrics
from ._operation import Link, Operation, Query
from ._request import ApiRequest
from ._routes import Handler, Route

__all__ = [
    "PREFIX",
    "ApiRequest",
    "AppListener",
    "FnListener",
    "Handler",
    "Link",
    "Listener",
    "ListeningDatastore",
    "Middleware",
    "Operation",
    "Query",
    "Reply",
    "RequestMetrics",
    "Route",
    "TriggerListener",
    "api_app",
    "cors",
    "error_reply",
    "json_reply",
    "with_middleware",
]
