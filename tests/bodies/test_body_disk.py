"""A disk that hangs in the midst of everything takes a few threads with it, and no call."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from hostler.bodies import BodyBudget, BytesBody, ReplayBody, disk, keep_whole
from hostler.bodies.disk import SpillFile
from hostler.errors import ServerBusy
from tests.conftest import Logs

from .bench import ChunkStream, assert_nothing_left, budget_of, files

SECONDS = 1.0
"""That a disk gets here."""
LIMIT = 60
CHUNK = b"x" * 1000


Hasty = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Hasty:
    """A block in which a disk has `SECONDS`. Outside of it one that is slow does not hang."""
    monkeypatch.setattr(disk, "DISK_SECONDS", LIMIT)

    @contextmanager
    def block() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk, "DISK_SECONDS", SECONDS)
            yield

    return block


@attrs.define
class Volume:
    """A file system of its own, which can be made to hang."""

    path: Path

    @contextmanager
    def frozen(self) -> Iterator[None]:
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)

    def budget(self) -> BodyBudget:
        return budget_of(10**6, 100, 10**6, str(self.path))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    if os.geteuid() != 0 or shutil.which("fsfreeze") is None or not os.path.exists("/dev/loop0"):
        pytest.skip("needs root, fsfreeze and loop devices")
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as made:
        made.truncate(8 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield Volume(path)
    finally:
        subprocess.run(["umount", path], check=True)


async def until_gone(budget: BodyBudget, before: int) -> None:
    """The disk is back, and as many files are open as before."""
    with trio.fail_after(LIMIT):
        while budget.files.hangs or files() != before:  # noqa: ASYNC110  (threads' work)
            await trio.sleep(0.005)
    assert (budget.memory, budget.disk) == (0, 0)


@pytest.mark.process
async def test_a_body_is_sent_on_though_it_can_be_written_nowhere(
    volume: Volume, hasty: Hasty, logs: Logs
) -> None:
    """The first one waits for the disk; those after it don't, until it is back."""
    before, budget = files(), volume.budget()
    with volume.frozen():
        began = trio.current_time()
        body = ReplayBody(ChunkStream(CHUNK, CHUNK), 10**6, budget)
        stream = body.open()
        with hasty():
            assert await stream.receive_some() == CHUNK
        assert trio.current_time() - began >= SECONDS
        assert (body.replayable, budget.not_kept["disk_error"]) == (False, 1)
        assert await stream.receive_some() == CHUNK
        began = trio.current_time()
        with pytest.raises(ServerBusy):
            await keep_whole(BytesBody(CHUNK), budget, 10**6)
        assert trio.current_time() - began < LIMIT / 2
        (told,) = logs.with_event("bodies can't be written to disk")
        assert told["error"] == "the disk does not answer within 1 s"
        assert (budget.memory, budget.disk) == (0, 0)
    await until_gone(budget, before)
    kept = await keep_whole(BytesBody(CHUNK), budget, 10**6)
    assert budget.disk == len(CHUNK)
    await kept.aclose()
    assert_nothing_left(budget, before)


async def test_closing_is_left_to_the_disk(monkeypatch: pytest.MonkeyPatch, hasty: Hasty) -> None:
    """So a node can drain, and a client that leaves is gone, cancelled or not."""
    before, budget = files(), budget_of(10**6, 100, 10**6)
    bodies = [await keep_whole(BytesBody(CHUNK), budget, 10**6) for _ in range(10)]
    assert files() == before + 10
    go, end = threading.Event(), SpillFile._end

    def hanging(file: SpillFile) -> None:
        go.wait(LIMIT)
        end(file)

    monkeypatch.setattr(SpillFile, "_end", hanging)
    began = trio.current_time()
    with hasty():
        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(body.aclose)
            nursery.cancel_scope.cancel()
    assert SECONDS <= trio.current_time() - began < LIMIT / 2
    assert (budget.memory, budget.disk) == (0, 0)
    assert files() == before + 10
    go.set()
    await until_gone(budget, before)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_read_that_hangs_is_an_error(
    monkeypatch: pytest.MonkeyPatch, hasty: Hasty, cancelled: bool
) -> None:
    """What it reads is nobody's, and the file's number not another's, before it comes back."""
    before, budget = files(), budget_of(10**6, 100, 10**6)
    kept = await keep_whole(BytesBody(CHUNK), budget, 10**6)
    go, read = threading.Event(), os.pread

    def hanging(number: int, size: int, offset: int) -> bytes:
        go.wait(LIMIT)
        seen.append(read(number, size, offset))
        return seen[0]

    seen: list[bytes] = []
    monkeypatch.setattr(os, "pread", hanging)
    with hasty(), trio.CancelScope() as scope:
        if cancelled:
            scope.deadline = trio.current_time() + SECONDS / 2
        with pytest.raises(disk.DiskHangs):
            await kept.open().receive_some()
    await kept.aclose()
    assert files() == before + 1
    go.set()
    await until_gone(budget, before)
    assert seen == [CHUNK]


async def test_work_that_only_waited_for_other_work_has_the_same_time_and_says_so(
    mock_clock: trio.testing.MockClock, hasty: Hasty
) -> None:
    """However many wait, each knows in time; a thread that hangs is its own work's."""
    files_of, go, errors = disk.Disk(), threading.Event(), Counter[str]()
    begun = trio.Semaphore(0)

    def hang() -> None:
        trio.from_thread.run_sync(begun.release)
        go.wait(LIMIT)

    async def work() -> None:
        with pytest.raises(disk.DiskHangs) as caught:
            await files_of.run(hang)
        errors[str(caught.value)] += 1

    with hasty():
        async with trio.open_nursery() as nursery:
            for _ in range(disk.THREADS + 2):
                nursery.start_soon(work)
            for _ in range(disk.THREADS):
                await begun.acquire()
            mock_clock.jump(SECONDS)
    assert errors == {
        "the disk does not answer within 1 s": disk.THREADS,
        "the disk is behind with its work by 1 s": 2,
    }
    go.set()
    mock_clock.rate = 1
    with trio.fail_after(LIMIT):
        while files_of.hangs:  # noqa: ASYNC110  (threads' work)
            await trio.sleep(0.005)
