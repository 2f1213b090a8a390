"""Capturing what a container writes to its standard streams."""

from __future__ import annotations

from collections.abc import Callable

import docker
import structlog
import trio
from docker.types import CancellableStream

from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._streams import interrupt

log = structlog.get_logger(__name__)

Frame = tuple[bytes | None, bytes | None]


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

        try:
            with self._scope:
                await self._engine.stream(
                    Operation.ATTACH, self._attach, self._on_frame, on_open=on_open
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

    def _attach(self, client: docker.APIClient) -> _Frames:
        return _Frames(
            client.attach(self._container_id, stdout=True, stderr=True, stream=True, demux=True)
        )

    def _on_frame(self, frame: Frame) -> None:
        try:
            for chunk, is_stderr in zip(frame, (False, True), strict=True):
                if chunk:
                    self._on_output(chunk, is_stderr)
        except Exception:
            # A broken logger must not take the function down.
            log.exception("on_output failed, output is not captured any more")
            self.close()


class _Frames:
    """The library's stream, with an end that may come at any time."""

    def __init__(self, stream: CancellableStream[Frame]) -> None:
        self._stream = stream

    def __iter__(self) -> CancellableStream[Frame]:
        return self._stream

    def interrupt(self) -> None:
        interrupt(self._stream)

    def close(self) -> None:
        # The connection was taken over for the stream and can't be used for anything else.
        interrupt(self._stream)
