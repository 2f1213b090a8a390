"""The head of a request, whoever has read it."""

from __future__ import annotations

import attrs
import h11

from hostler._plain_http import Pairs, PlainRequest


@attrs.define
class Request:
    """Names of ``fields`` are in lower case. ``body`` is there if the request was plain: h11 knows
    nothing of it."""

    method: bytes
    target: bytes
    fields: Pairs
    version: str
    body: bytes | None = None

    @classmethod
    def of(cls, event: h11.Request) -> Request:
        version = event.http_version.decode("ascii")
        return cls(event.method, event.target, list(event.headers), version)

    @classmethod
    def of_plain(cls, plain: PlainRequest) -> Request:
        return cls(plain.method, plain.target, plain.fields, "1.1", plain.body)
