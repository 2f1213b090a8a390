"""What the HTTP applications share: ASGI's types, whole answers, and the request's side of an
exchange."""

from ._incoming import READ_AHEAD, BodyBroken, BodyTimeout, Incoming
from ._replies import JSON_TYPE, Reply, error_document, error_reply, json_reply, text_reply
from ._types import ASGIApp, Message, RawHeaders, Receive, Scope, Send, decode_header

__all__ = [
    "JSON_TYPE",
    "READ_AHEAD",
    "ASGIApp",
    "BodyBroken",
    "BodyTimeout",
    "Incoming",
    "Message",
    "RawHeaders",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "decode_header",
    "error_document",
    "error_reply",
    "json_reply",
    "text_reply",
]
