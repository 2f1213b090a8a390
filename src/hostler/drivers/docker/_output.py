"""Capturing what a container writes to its standard streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import docker
import requests
import structlog
import trio
from docker.types import CancellableStream
from docker.utils.socket import STDERR, frames_iter

from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._streams import interrupt, raise_for_status

log = structlog.get_logger(__name__)

Frame = tuple[int, bytes]
"""Number of the stream, and a piece of it."""


class OutputCapture:
    """Passes a container's output on, from before its start until its end.

    Costs one thread for the container's life. ``over`` is set when everything was passed on.
    """

    def __init__(
        self, engine: Engine, container_id: str, on_output: Callable[[bytes, bool], None]
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self._on_output = on_output
        self._scope = trio.CancelScope()
        self.over = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Started when the engine has attached us: what is written later is not lost.

        Raises `EngineError` until then; later trouble is logged and ends the capture only.
        """
        attached = False

        def on_open() -> None:
            nonlocal attached
            attached = True
            task_status.started()

        request = partial(
            _attach,
            container_id=self._container_id,
            head_limit=self._engine.limit(Operation.ATTACH),
        )
        try:
            with self._scope:
                await self._engine.stream(
                    Operation.ATTACH, request, self._on_frame, on_open=on_open
                )
        except EngineError as error:
            if not attached:
                raise
            log.warning("output lost", container=self._container_id, error=str(error))
        finally:
            self.over.set()

    def close(self) -> None:
        """Stop now."""
        self._scope.cancel()

    def _on_frame(self, frame: Frame) -> None:
        stream, chunk = frame
        try:
            self._on_output(chunk, stream == STDERR)
        except Exception:
            # A broken logger must not take the function down.
            log.exception("on_output failed, output is not captured any more")
            self.close()


class _Frames:
    """The two output streams of a container, as the engine multiplexes them."""

    def __init__(self, client: docker.APIClient, response: requests.Response) -> None:
        self._response = response
        # Untyped parts of the library: the one that finds the connection's socket is private.
        sock = client._get_raw_response_socket(response)  # type: ignore[attr-defined]
        frames = frames_iter(sock, tty=False)  # type: ignore[no-untyped-call]
        self._frames: CancellableStream[Frame] = CancellableStream(frames, response)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def interrupt(self) -> None:
        interrupt(self._frames)

    def close(self) -> None:
        # The connection was taken over for the stream and can't be used for anything else.
        interrupt(self._frames)
        self._response.close()


def _attach(client: docker.APIClient, *, container_id: str, head_limit: float) -> _Frames:
    """What the library's ``attach`` does, which keeps the response to itself and so never
    closes the connection."""
    response = client.post(
        f"{client.base_url}/v{client.api_version}/containers/{container_id}/attach",
        params={"stdout": "1", "stderr": "1", "stream": "1"},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=head_limit,  # of the head only: the library polls for the frames
    )
    raise_for_status(response)
    return _Frames(client, response)
