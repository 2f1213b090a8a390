"""A program at a terminal, which can be typed at."""

from __future__ import annotations

import os
import pty
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from ._process import SCRIPT, clean_env

SECONDS = 60


@attrs.define(eq=False)
class Terminal:
    """``shown`` is what has come since the last `until`."""

    process: trio.Process
    stream: trio.lowlevel.FdStream
    shown: bytes = b""

    async def type(self, text: str) -> None:
        await self.stream.send_all(text.encode())

    async def until(self, part: str) -> str:
        """What is shown up to and with ``part``."""
        wanted = part.encode()
        with trio.move_on_after(SECONDS):
            while wanted not in self.shown:
                self.shown += await self.stream.receive_some()
            end = self.shown.index(wanted) + len(wanted)
            found, self.shown = self.shown[:end], self.shown[end:]
            return found.decode()
        raise AssertionError(f"{part!r} did not come: {self.shown!r}")

    async def ends(self) -> int:
        with trio.fail_after(SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def open_terminal(
    argv: Sequence[str], folder: Path, **variables: str
) -> AsyncIterator[Terminal]:
    """``hostler`` is found by its name. The program is killed at the end if it still runs."""
    ours, its = pty.openpty()
    path = f"{SCRIPT.parent}:{os.environ['PATH']}"
    env = {"PATH": path, "TERM": "dumb", "HOME": str(folder), **variables}
    async with trio.lowlevel.FdStream(ours) as stream:
        try:
            process = await trio.lowlevel.open_process(
                argv,
                stdin=its,
                stdout=its,
                stderr=its,
                start_new_session=True,
                cwd=folder,
                env=clean_env(env),
            )
        finally:
            os.close(its)
        try:
            yield Terminal(process, stream)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()
