"""Calls of functions over HTTP, and other requests whose answer streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import httpx

from ._errors import ApiUnavailable

CONNECT_SECONDS = 5.0


def authorization(token: str) -> dict[str, str]:
    """The header that carries ``token``; none for ""."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@attrs.frozen
class Answer:
    """The head of an answer, and its body as it comes."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]
    """Pieces of any size. Raises `ApiUnavailable` if the body breaks off."""

    def header(self, name: str) -> str:
        """The first one of this name in any case, or ""."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


@asynccontextmanager
async def open_request(
    method: str,
    url: str,
    *,
    body: AsyncIterator[bytes] | bytes = b"",
    headers: Mapping[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Answer]:
    """Send one request, once; the block has the answer as soon as its head is there.

    There is no limit of time but for the connection (5 s): how long a function takes is known to
    the node. Leaving the block, or cancelling it, closes the connection, which ends the call at the
    other end too. Raises `ApiUnavailable` if there is no answer.
    """
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(timeout=timeout, transport=transport) as client:
        try:
            request = client.build_request(method, url, content=body, headers=headers)
            answer = await client.send(request, stream=True)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise ApiUnavailable(_reason(error)) from error
        except UnicodeError as error:  # of the look-up of its name
            raise ApiUnavailable(f"{url} names no host") from error
        try:
            yield Answer(
                answer.status_code,
                answer.reason_phrase,
                list(answer.headers.multi_items()),
                _pieces(answer),
            )
        finally:
            await answer.aclose()


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_bytes():
            yield piece
    except httpx.RequestError as error:
        raise ApiUnavailable(f"the answer broke off: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
