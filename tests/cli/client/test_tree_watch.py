"""Changes of a directory tree are noticed, also more of them than the kernel has room for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.cli.client.run import changes

LIMIT = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""Events that wait to be read; more are lost."""


@asynccontextmanager
async def watching(root: Path) -> AsyncIterator[trio.MemoryReceiveChannel[None]]:
    """One item for each group of changes, from now on."""
    send, receive = trio.open_memory_channel[None](1000)

    async def watch() -> None:
        async with aclosing(changes(root)) as found:
            async for _ in found:
                send.send_nowait(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        yield receive
        nursery.cancel_scope.cancel()


async def next_of(groups: trio.MemoryReceiveChannel[None]) -> None:
    with trio.fail_after(60):
        await groups.receive()


async def none_of(groups: trio.MemoryReceiveChannel[None], root: Path) -> None:
    """What has been done so far counts as nothing: the next group is of a file written now."""
    (root / "seen").write_text("")
    await next_of(groups)
    with pytest.raises(trio.WouldBlock):
        groups.receive_nowait()


async def test_a_change_in_a_new_directory_counts_and_what_is_no_source_does_not(
    tmp_path: Path,
) -> None:
    async with watching(tmp_path) as groups:
        for name in (".git", "__pycache__", "node_modules"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("")
        await none_of(groups, tmp_path)
        (tmp_path / "gone").mkdir()
        (tmp_path / "gone").rmdir()
        (tmp_path / "new" / "inner").mkdir(parents=True)
        await next_of(groups)
        (tmp_path / "new" / "inner" / "file").write_text("")
        await next_of(groups)


async def test_a_directory_that_is_made_while_events_are_lost_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "file"
    async with watching(tmp_path) as groups:
        # (Without a checkpoint: nobody reads the queue.) Each round is three events or more.
        for _ in range(LIMIT // 3 + 1):
            file.write_text("")
            file.unlink()
        (tmp_path / "late" / "inner").mkdir(parents=True)
        await next_of(groups)
        (tmp_path / "late" / "inner" / "file").write_text("")
        await next_of(groups)
