"""Clients that read only after they have written everything, as Python's `http.client` does."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from tests.cli._process import NodeProcess, ends

from .nodes import LIMIT, errors_of, open_fleet, open_single

MUCH = 16_000_000
"""Bytes, more than the buffers of all sockets on the way hold."""
FRONT = {"FN_MAX_REQUEST_SIZE": "30000000"}

Opened = AbstractAsyncContextManager[NodeProcess]


@asynccontextmanager
async def lb_and_runner(folder: Path) -> AsyncIterator[NodeProcess]:
    async with open_fleet(folder, runners=1, lb_env=FRONT) as fleet:
        yield fleet.lb
        assert errors_of(fleet.lb) == []
        assert await ends(fleet.lb) == 0


@asynccontextmanager
async def single(folder: Path) -> AsyncIterator[NodeProcess]:
    async with open_single(folder, env=FRONT) as node:
        yield node.node
        assert errors_of(node.node) == []


def post(node: NodeProcess, size: int, path: str, how: str, do: str) -> tuple[int, bytes]:
    """Write a whole request, and then read. Blocks."""
    host, _, port = node.ready["http"][0].rpartition(":")
    client = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Fnt-Do": do}
    if how == "expecting":
        headers["Expect"] = "100-continue"
    body: bytes | Iterator[bytes] = bytes(size)
    if how == "chunked":
        body = (bytes(50_000) for _ in range(size // 50_000))
    with closing(client):
        client.request("POST", path, body, headers, encode_chunked=how == "chunked")
        answer = client.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("how", ["of a length", "chunked", "expecting"])
@pytest.mark.parametrize("opened", [lb_and_runner, single])
async def test_who_reads_after_it_has_written_is_answered(
    folder: Path, opened: Callable[[Path], Opened], how: str
) -> None:
    """By a function that answers first and reads then, by one that does not read, by one that
    answers with what it has read, and by a refusal."""
    async with opened(folder) as front:
        for path, do, size, status in [
            ("/invoke/fnt", f"early;size={MUCH}", MUCH, 200),
            ("/invoke/fnt", f"early=close;size={MUCH}", MUCH, 200),
            ("/invoke/fnt", "", MUCH, 200),
            ("/invoke/none", "", MUCH, 404),
            ("/invoke/fnt", "", MUCH * 2, 413),
        ]:
            with trio.fail_after(LIMIT):
                found = await trio.to_thread.run_sync(post, front, size, path, how, do)
            assert found[0] == status, (path, do)
            assert status != 200 or len(found[1]) == MUCH
