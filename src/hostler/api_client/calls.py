"""Calls of functions over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import httpx
import msgspec

from ..errors import APIError, FnNotFound
from ..rules import errors
from ..rules.errors import Conflict, DatastoreUnavailable, Invalid, NotFound

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
) -> AsyncIterator[Answer]:
    """Send one request, once; the block has the answer as soon as its head is there.

    There is no limit of time but for the connection (5 s): how long a function takes is known to
    the node. Leaving the block, or cancelling it, closes the connection, which ends the call at the
    other end too. Raises `ApiUnavailable` if there is no answer.
    """
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(timeout=timeout) as client:
        try:
            request = client.build_request(method, url, content=body, headers=headers)
            answer = await client.send(request, stream=True)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise ApiUnavailable(reason_of(error)) from error
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
        raise ApiUnavailable(f"the answer broke off: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """What a failed request failed for, in words. An error without a text, as failed handshakes
    have, is told by its cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate can't be verified: {cause.verify_message}"
        if isinstance(cause, ExceptionGroup) and cause.subgroup(ConnectionRefusedError):
            return "connection refused"
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}".rstrip(": ")


_BY_CODE: dict[int, type[APIError]] = {400: Invalid, 404: NotFound, 409: Conflict}


class ApiUnavailable(DatastoreUnavailable, text="API unavailable, try again later"):
    """The API can't be reached, or fails. ``reason`` is for operators: it may name hosts."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


def no_api(fault: str) -> ApiUnavailable:
    """Something answers, but not as the API would."""
    return ApiUnavailable(f"what answers is no API: {fault}")


class _Message(msgspec.Struct):
    message: str = ""


def _known() -> dict[tuple[int, str], type[APIError]]:
    """Errors with a fixed text, by code and text."""
    found: dict[tuple[int, str], type[APIError]] = {}
    for value in (*vars(errors).values(), FnNotFound):
        is_error = isinstance(value, type) and issubclass(value, APIError)
        if is_error and "default_message" in vars(value):
            found[value.default_code, value.default_message] = value
    return found


_KNOWN = _known()
_FOREIGN = "the API answered {}"


def refusal(status: int, body: bytes) -> APIError:
    """The error of an answer that is neither a success nor a failure of the API itself.

    The class of `hostler.rules.errors` with that code and text, else a plain one with the text of
    the body.
    """
    text = message_of(body) or _FOREIGN.format(status)
    known = _KNOWN.get((status, text))
    return known() if known is not None else _BY_CODE.get(status, APIError)(status, text)


def is_foreign(error: APIError) -> bool:
    """Whether it is the `refusal` of something that has no error documents as the API has."""
    return error.message == _FOREIGN.format(error.code)


def message_of(body: bytes) -> str:
    """The text of an error document, "" if it is none."""
    try:
        return msgspec.json.decode(body, type=_Message).message
    except (msgspec.DecodeError, UnicodeError):
        return ""
