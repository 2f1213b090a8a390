"""Runs ``fnt`` as a plain process and talks HTTP to it, for the tests of ``fnt`` itself."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import httpx
import inotify_simple  # type: ignore[import-untyped]  # it has no stubs
import trio

from .build import fnt_path

LIMIT = 60
"""Seconds after which a test has failed; nothing here takes a tenth of it."""


@attrs.frozen
class Fnt:
    """A running function."""

    process: trio.Process
    folder: Path
    client: httpx.AsyncClient

    async def call(
        self, do: str = "", content: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.client.post(
            "/call", content=content, headers={"Fnt-Do": do, **(headers or {})}
        )

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self.folder / "lsnr.sock"))


class Watch:
    """Sees names appear in a folder, from the moment it is made."""

    def __init__(self, folder: Path) -> None:
        self._inotify = inotify_simple.INotify(nonblocking=True)
        self._inotify.add_watch(folder, inotify_simple.flags.CREATE)

    async def wait_for(self, name: str) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            if any(event.name == name for event in self._inotify.read(timeout=0)):
                return

    def close(self) -> None:
        self._inotify.close()


class Output:
    """What a process writes, through a pipe."""

    def __init__(self) -> None:
        read_end, self.write_end = os.pipe()
        self._file = open(read_end, "rb")  # noqa: SIM115  (closed by close)

    def started(self) -> None:
        """The process has its copy of the writing end."""
        os.close(self.write_end)

    def line(self) -> bytes:
        return self._file.readline()

    def rest(self) -> bytes:
        """All up to the end of the process."""
        return self._file.read()

    def close(self) -> None:
        self._file.close()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.asynccontextmanager
async def start_fnt(
    folder: Path, start: str = "", stdout: int | None = None, **env: str
) -> AsyncIterator[trio.Process]:
    """A started process, ended and waited for at the end."""
    settings = {
        "FN_FORMAT": "http-stream",
        "FN_LISTENER": f"unix:{folder}/lsnr.sock",
        "FNT_START": start,
    }
    async with trio.open_nursery() as nursery:
        run = functools.partial(
            trio.run_process,
            [str(fnt_path())],
            env={**settings, **env},
            stdout=stdout,
            stderr=subprocess.STDOUT if stdout else None,
            check=False,
        )
        process = await nursery.start(run)
        with trio.fail_after(LIMIT):
            yield process
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)


@contextlib.asynccontextmanager
async def open_fnt(
    folder: Path, start: str = "", stdout: int | None = None, **env: str
) -> AsyncIterator[Fnt]:
    """A function that is ready to serve."""
    with contextlib.closing(Watch(folder)) as watch:
        async with start_fnt(folder, start, stdout, **env) as process:
            await watch.wait_for("lsnr.sock")
            transport = httpx.AsyncHTTPTransport(uds=str(folder / "lsnr.sock"))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://fn", timeout=60
            ) as client:
                yield Fnt(process, folder, client)
