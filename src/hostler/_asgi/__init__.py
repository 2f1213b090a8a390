"""What the HTTP applications share: ASGI's types, whole answers, and the request's side of an
exchange."""

from ._access import Access, GuardedApp, Hosts, is_loopback, name_of
from ._cors import cors
from ._incoming import READ_AHEAD, BodyBroken, BodyTimeout, Incoming, Outgoing
from ._lifespan import answer_lifespan
from ._middleware import Middleware, with_middleware
from ._own_server import Handler, HeadReader, OwnServer, as_extension, head_reader, own_server
from ._replies import (
    JSON_TYPE,
    Reply,
    encoded_reply,
    error_document,
    error_reply,
    json_reply,
    text_reply,
)
from ._request_id import request_id
from ._tokens import Tokens
from ._types import ASGIApp, Message, RawHeader, RawHeaders, Receive, Scope, Send, decode_header

__all__ = [
    "JSON_TYPE",
    "READ_AHEAD",
    "ASGIApp",
    "Access",
    "BodyBroken",
    "BodyTimeout",
    "GuardedApp",
    "Handler",
    "HeadReader",
    "Hosts",
    "Incoming",
    "Message",
    "Middleware",
    "Outgoing",
    "OwnServer",
    "RawHeader",
    "RawHeaders",
    "Receive",
    "Reply",
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
