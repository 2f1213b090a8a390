"""Images built from a directory, pushed, or loaded from an archive."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import docker
import docker.auth
from docker.utils.build import tar

from ...errors import ConfigError
from .engine import (
    JSON,
    Engine,
    EngineError,
    EngineOperation,
    JSONLines,
    open_engine,
    open_json_lines,
)
from .images import parse_image

OnLine = Callable[[str], None]

_GENERATED = ".hostler.Dockerfile"
"""The name of a Dockerfile that is not in the directory."""

IGNORE_FILE = ".dockerignore"


async def build_image(
    environ: Mapping[str, str],
    folder: Path,
    name: str,
    *,
    dockerfile: str = "",
    on_line: OnLine,
) -> None:
    """Build the image ``name`` of ``folder`` on the engine that ``environ`` names.

    ``dockerfile`` is the text of a Dockerfile; "" = the folder has one. Its ``.dockerignore``
    counts. ``on_line`` gets what the engine says, line by line. Base images are pulled with the
    credentials of Docker's own client. Raises `EngineError`: it can't be reached, or the build
    failed. Cancelling closes the connection, which makes the engine give the build up.
    """
    async with _opened(environ) as engine:
        request = partial(
            _send_build,
            folder=folder,
            name=name,
            dockerfile=dockerfile,
            silence=engine.limit(EngineOperation.BUILD),
        )
        await _follow(engine, EngineOperation.BUILD, request, on_line)


async def push_image(environ: Mapping[str, str], name: str, *, on_line: OnLine) -> None:
    """Push ``name`` to its registry. Parameters and errors as of `build_image`."""
    async with _opened(environ) as engine:
        request = partial(_send_push, name=name, silence=engine.limit(EngineOperation.PUSH))
        await _follow(engine, EngineOperation.PUSH, request, on_line)


@asynccontextmanager
async def _opened(environ: Mapping[str, str]) -> AsyncIterator[Engine]:
    engine = await open_engine(environ)
    try:
        yield engine
    finally:
        await engine.aclose()


async def _follow(
    engine: Engine,
    operation: EngineOperation,
    request: Callable[[docker.APIClient], JSONLines],
    on_line: OnLine,
) -> None:
    failure = ""
    async with engine.stream(operation, request) as messages:
        async for message in messages:
            failure = failure or str(message.get("error") or "").strip()
            for line in _text(message).splitlines():
                if line.strip():
                    on_line(line)
    if failure:  # the engine reports it inside a 200
        raise EngineError(operation.value, failure)


def _text(message: JSON) -> str:
    """Steps of a build are ``stream``, those of a transfer ``status``; how many bytes of a layer
    are there is left out."""
    if "stream" in message:
        return str(message["stream"])
    if message.get("progressDetail"):
        return ""
    layer = f"{message['id']}: " if message.get("id") else ""
    return f"{layer}{message['status']}" if "status" in message else ""


def _send_build(
    client: docker.APIClient, *, folder: Path, name: str, dockerfile: str, silence: float
) -> JSONLines:
    known: Any = docker.auth.load_config()
    with tempfile.TemporaryFile() as archive:
        generated = (_GENERATED, dockerfile) if dockerfile else ("Dockerfile", None)
        tar(folder, exclude=_ignored(folder), dockerfile=generated, fileobj=archive)
        archive.seek(0)
        # The library can't put a file of ours into a directory that is not.
        return open_json_lines(
            client,
            "POST",
            "/build",
            silence=silence,
            params={"t": name, "dockerfile": generated[0], "rm": "1", "forcerm": "1"},
            headers={
                "Content-Type": "application/x-tar",
                "X-Registry-Config": _header(known.get_all_credentials()),
            },
            data=cast(IO[bytes], archive),
        )


def _send_push(client: docker.APIClient, *, name: str, silence: float) -> JSONLines:
    reference = parse_image(name)
    found = docker.auth.load_config().resolve_authconfig(reference.registry or None)
    return open_json_lines(
        client,
        "POST",
        f"/images/{reference.name}/push",
        silence=silence,
        params={"tag": reference.tag},
        headers={"X-Registry-Auth": _header(found or {})},
    )


def _ignored(folder: Path) -> list[str]:
    path = folder / IGNORE_FILE
    if not path.exists():
        return []
    lines = (line.strip() for line in io.StringIO(path.read_text()))
    return [line for line in lines if line and not line.startswith("#")]


def _header(credentials: Any) -> str:
    encoded: bytes = docker.auth.encode_header(credentials)
    return encoded.decode()


async def load_archive(engine: Engine, archive: Path | bytes) -> None:
    """Load the images of an archive into the engine.

    Raises `ConfigError` if the file can't be read, and `EngineError` if the engine refuses it.
    """
    request = partial(_send, archive=archive, silence=engine.limit(EngineOperation.LOAD))
    async with engine.stream(EngineOperation.LOAD, request) as messages:
        failures = [str(error) async for message in messages if (error := message.get("error"))]
    if failures:
        raise EngineError(EngineOperation.LOAD.value, failures[0])


def _send(client: docker.APIClient, *, archive: Path | bytes, silence: float) -> JSONLines:
    with _open(archive) as data:
        return open_json_lines(
            client, "POST", "/images/load", silence=silence, params={"quiet": "1"}, data=data
        )


def _open(archive: Path | bytes) -> IO[bytes]:
    if isinstance(archive, bytes):
        return io.BytesIO(archive)
    try:
        return archive.open("rb")
    except OSError as error:
        raise ConfigError(f"can't read FN_DOCKER_LOAD_FILE: {error}") from error
