"""What the HTTP applications share: ASGI's types, whole answers, and the request's side of an
exchange.

* ``access``: access rules: host names, origins, bearer tokens and sessions
* ``middleware``: middleware chains, the guard that turns exceptions into responses, CORS
* ``replies``: whole responses: JSON documents, Fn's error documents, request ids
* ``request_body``: request body of one exchange, and the news that its client has gone
* ``types``: ASGI types, lifespan, and the extension of hostler's own server
"""

from .access import Access, AccessControl, Hosts, Tokens, is_loopback, name_of
from .middleware import Middleware, cors, with_middleware
from .replies import (
    JSON_TYPE,
    Reply,
    encoded_reply,
    error_document,
    error_reply,
    json_reply,
    request_id,
    text_reply,
)
from .request_body import READ_AHEAD, BodyBroken, BodyTimeout, CallBodyLimits, Outgoing, RequestBody
from .types import (
    ASGIApp,
    GoneListener,
    Handler,
    HeadReader,
    Message,
    OwnServer,
    RawHeader,
    RawHeaders,
    Receive,
    Scope,
    Send,
    answer_lifespan,
    as_extension,
    decode_header,
    head_reader,
    own_server,
)

__all__ = [
    "JSON_TYPE",
    "READ_AHEAD",
    "ASGIApp",
    "Access",
    "AccessControl",
    "BodyBroken",
    "BodyTimeout",
    "CallBodyLimits",
    "GoneListener",
    "Handler",
    "HeadReader",
    "Hosts",
    "Message",
    "Middleware",
    "Outgoing",
    "OwnServer",
    "RawHeader",
    "RawHeaders",
    "Receive",
    "Reply",
    "RequestBody",
    "Scope",
    "Send",
    "Tokens",
    "answer_lifespan",
    "as_extension",
    "cors",
    "decode_header",
    "encoded_reply",
    "error_document",
    "error_reply",
    "head_reader",
    "is_loopback",
    "json_reply",
    "name_of",
    "own_server",
    "request_id",
    "text_reply",
    "with_middleware",
]
