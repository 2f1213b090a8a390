"""The engine's streaming answers as lines of JSON.

Of the library's own streaming calls, ``events`` and ``pull`` switch the socket's time limit off,
and ``events`` takes a broken connection for the regular end. So these requests go through the
client's `requests` interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import docker
import msgspec
import requests
from docker.errors import DockerException, create_api_error_from_http_exception
from docker.types import CancellableStream

JSON = dict[str, Any]


class JSONLines:
    """The JSON objects of a streamed response."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        # Only for its way of closing a socket under a reading thread.
        self._closer: CancellableStream[bytes] = CancellableStream(iter(()), response)

    def __iter__(self) -> Iterator[JSON]:
        for line in self._response.iter_lines():
            if line:
                yield _decode(line)

    def interrupt(self) -> None:
        interrupt(self._closer)

    def close(self) -> None:
        self._response.close()


def _decode(line: bytes) -> JSON:
    try:
        return msgspec.json.decode(line, type=JSON)
    except msgspec.MsgspecError as error:
        raise DockerException(f"the engine sent something else than JSON: {error}") from error


def interrupt(stream: CancellableStream[Any]) -> None:
    """Shut the socket under the reader of ``stream``. Harmless after the end."""
    try:
        stream.close()
    except (OSError, AttributeError):
        # The library looks for the socket in the response; after the end there is none.
        return


def open_json_lines(
    client: docker.APIClient,
    method: str,
    path: str,
    *,
    silence: float,
    params: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
    data: IO[bytes] | None = None,
) -> JSONLines:
    """Send a request and return its answer once its head is there.

    ``silence`` limits, in seconds, each wait for the connection and for the next bytes. Raises
    what the Docker library raises for an answer that is an error.
    """
    response = client.request(
        method,
        f"{client.base_url}/v{client.api_version}{path}",
        params=dict(params),
        headers=dict(headers or {}),
        data=data,
        stream=True,
        timeout=silence,
    )
    raise_for_status(response)
    return JSONLines(response)


def raise_for_status(response: requests.Response) -> None:
    """Raise the library's exception for an answer that is an error, with the engine's text."""
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)
