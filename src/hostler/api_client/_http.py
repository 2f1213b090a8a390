"""Requests to the API: retried, within one limit of time."""

from __future__ import annotations

import random
from collections.abc import Mapping

import httpx
import structlog
import trio

from hostler._spans import PARENT, ending, request_span

from ._errors import ApiUnavailable, message_of, refusal

log = structlog.get_logger(__name__)

RETRIES = 5
"""Of reads (Fn's number)."""
FIRST_PAUSE, LEAST_PAUSE, GREATEST_PAUSE = 0.050, 0.025, 1.0
"""Seconds between attempts: Fn's first and least ones. Ours doubles, up to the greatest."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Connection:
    """Sends requests over connections that are kept."""

    def __init__(self, client: httpx.AsyncClient, time_limit: float) -> None:
        self._client = client
        self._time_limit = time_limit

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The body of a successful answer. ``path`` is URL-encoded and begins with a slash.

        Reads are tried again after failures of the API (5xx) and of the network; what changes
        something only if it was certainly not sent. Raises `ApiUnavailable`, and what the answer
        says otherwise (`refusal`). In a traced request it is a span of that.
        """
        headers = {"Content-Type": "application/json"} if body else {}
        if (request := request_span.get()) is None:
            return await self._send(method, path, query, body, headers)
        told = {"http.request.method": method, "url.path": path}
        span = request.child("look up", told, kind="client")
        with ending(span):
            headers[PARENT] = span.traceparent
            return await self._send(method, path, query, body, headers)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> bytes:
        reason = ""
        with trio.move_on_after(self._time_limit):
            for attempt in range(RETRIES + 1):
                if attempt:
                    await trio.sleep(_pause(attempt))
                try:
                    answer = await self._client.request(
                        method, path, params=query, content=body, headers=headers
                    )
                except httpx.RequestError as error:
                    reason = f"{type(error).__name__}: {error}".rstrip(": ")
                    again = method == "GET" or isinstance(error, NOT_SENT)
                else:
                    if answer.status_code < 500:
                        return _content(answer)
                    reason = f"{answer.status_code} {message_of(answer.content)}".rstrip()
                    again = method == "GET"
                log.debug("API request failed", method=method, path=path, reason=reason)
                if not again:
                    break
            raise ApiUnavailable(reason)
        timeout = f"no answer within {self._time_limit:g} s"
        raise ApiUnavailable(f"{timeout}; {reason}" if reason else timeout)


def _content(answer: httpx.Response) -> bytes:
    if answer.status_code >= 300:
        raise refusal(answer.status_code, answer.content)
    return answer.content


def _pause(attempt: int) -> float:
    pause = min(FIRST_PAUSE * 2 ** (attempt - 1), GREATEST_PAUSE)
    return random.uniform(max(LEAST_PAUSE, pause / 2), pause)  # noqa: S311  (only spreads)
