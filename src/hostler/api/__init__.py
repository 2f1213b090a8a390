"""The API of apps, functions and triggers over HTTP: what is below ``/v2``.

`api_app` makes the application. A program can add a `Listener`, `Middleware` and a `Route`; see the
example in docs/reference/api.md.

* ``app``: API application: middleware, counting, naming in logs
* ``handlers``: handlers of apps, functions and triggers, with endpoint annotations
* ``listeners``: API listeners, and the datastore that asks and tells them
* ``openapi``: OpenAPI description made from routes and types
* ``request``: API requests: queries, JSON bodies by Go's rules, body limits
* ``routes``: routes and their descriptions
"""

from .._asgi.middleware import Middleware, cors, with_middleware
from .._asgi.replies import Reply, error_reply, json_reply
from .app import PREFIX, api_app, endpoints_app
from .listeners import AppListener, FnListener, Listener, ListeningDatastore, TriggerListener
from .request import ApiRequest
from .routes import ApiOperation, Handler, Query, ResponseLink, Route

__all__ = [
    "PREFIX",
    "ApiOperation",
    "ApiRequest",
    "AppListener",
    "FnListener",
    "Handler",
    "Listener",
    "ListeningDatastore",
    "Middleware",
    "Query",
    "Reply",
    "ResponseLink",
    "Route",
    "TriggerListener",
    "api_app",
    "cors",
    "endpoints_app",
    "error_reply",
    "json_reply",
    "with_middleware",
]
