"""Sends requests to an ASGI application, without a socket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import msgspec

from hostler.front import ASGIApp
from tests.front._asgi_client import AsgiRequest, Pairs

HOST = "api.test:8080"

_PARTS = ("apps", "fns", "triggers", "find", "app_id_by_name", "trigger_by_source")

NO_STORE: Any = SimpleNamespace(**dict.fromkeys(_PARTS))
"""For requests that reach no datastore."""


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return msgspec.json.decode(self.content)

    @property
    def message(self) -> str:
        """The text of an error, whose document must be Fn's."""
        assert self.content.endswith(b"}\n")
        document = self.json
        assert list(document) == ["message"]
        return str(document["message"])

    def fails(self, status: int, message: str) -> bool:
        assert (self.status, self.message) == (status, message)
        return True


@attrs.frozen
class Client:
    """A client of ``app``."""

    app: ASGIApp
    headers: tuple[tuple[str, str], ...] = (("Host", HOST),)

    async def send(
        self, method: str, path: str, body: object = None, *, headers: Pairs | None = None
    ) -> Answer:
        """``path`` may have a query; ``body`` is sent as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else b"" if body is None else encode(body)
        target, _, query = path.partition("?")
        kind = [("Content-Type", "application/json")] if data else []
        request = AsgiRequest(
            target, method=method, query=query, headers=[*self.headers, *kind, *(headers or [])]
        )
        await request.body(data).run(self.app)
        assert request.complete
        return Answer(request.status, request.headers, request.content)

    async def get(self, path: str) -> Answer:
        return await self.send("GET", path)

    async def post(self, path: str, body: object) -> Answer:
        return await self.send("POST", path, body)

    async def put(self, path: str, body: object) -> Answer:
        return await self.send("PUT", path, body)

    async def delete(self, path: str) -> Answer:
        return await self.send("DELETE", path)

    async def made(self, path: str, body: object) -> Any:
        """What was created."""
        answer = await self.post(path, body)
        assert answer.status == 200, answer.content
        return answer.json


def encode(document: object) -> bytes:
    return msgspec.json.encode(document)
