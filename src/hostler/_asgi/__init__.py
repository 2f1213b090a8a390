"""What the HTTP applications share: ASGI's types, whole answers, and the request's side of an
exchange."""

from ._cors import cors
from ._incoming import READ_AHEAD, BodyBroken, BodyTimeout, Incoming
from ._lifespan import answer_lifespan
from ._middleware import Middleware, with_middleware
from ._replies import (
    JSON_TYPE,
    Reply,
    encoded_reply,
    error_document,
    error_reply,
    json_reply,
    text_reply,
)
from ._types import (
    MEMO,
    ON_DISCONNECT,
    WHOLE_BODY,
    ASGIApp,
    Message,
    RawHeaders,
    Receive,
    Scope,
    Send,
    decode_header,
)

__all__ = [
    "JSON_TYPE",
    "MEMO",
    "ON_DISCONNECT",
    "READ_AHEAD",
    "WHOLE_BODY",
    "ASGIApp",
    "BodyBroken",
    "BodyTimeout",
    "Incoming",
    "Message",
    "Middleware",
    "RawHeaders",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "answer_lifespan",
    "cors",
    "decode_header",
    "encoded_reply",
    "error_document",
    "error_reply",
    "json_reply",
    "text_reply",
    "with_middleware",
]
