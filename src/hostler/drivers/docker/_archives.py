"""Images that come to the engine as an archive, not from a registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import IO

import docker

from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._streams import JSON, JSONLines, open_json_lines


async def load_archive(engine: Engine, open_archive: Callable[[], IO[bytes]]) -> None:
    """Load the images of an archive into the engine; ``open_archive`` is called on a thread.

    Raises what that raises, and `EngineError` if the engine refuses it.
    """
    failure: list[str] = []

    def on_message(message: JSON) -> None:
        if text := message.get("error"):
            failure.append(str(text))

    silence = engine.limit(Operation.LOAD)
    request = partial(_send, open_archive=open_archive, silence=silence)
    await engine.stream(Operation.LOAD, request, on_message)
    if failure:
        raise EngineError(Operation.LOAD.value, failure[0])


def _send(
    client: docker.APIClient, *, open_archive: Callable[[], IO[bytes]], silence: float
) -> JSONLines:
    with open_archive() as archive:
        return open_json_lines(
            client, "POST", "/images/load", silence=silence, params={"quiet": "1"}, data=archive
        )
