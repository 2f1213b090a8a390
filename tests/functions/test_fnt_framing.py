"""``fnt`` on the byte level: framing of requests, and answers that come early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from .process import Fnt, open_fnt

HEAD = b"POST /call HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
async def fnt(tmp_path: Path) -> AsyncIterator[Fnt]:
    async with open_fnt(tmp_path) as fnt:
        yield fnt


async def read_answer(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """Head and body of one answer that has a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some()
        assert part, f"the connection ended after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-L")
    ]
    while len(body) < length:
        part = await stream.receive_some()
        assert part, "the connection ended inside the body"
        body += part
    return head, body


async def is_closed(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


async def test_any_split_of_a_chunked_body(tmp_path: Path) -> None:
    parts = st.lists(st.binary(max_size=70_000), max_size=4)
    async with open_fnt(tmp_path) as fnt:
        stream = await fnt.connect()

        async def check(body: list[bytes], cut: int) -> None:
            data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
            cut %= len(data)
            await stream.send_all(data[:cut])
            await stream.send_all(data[cut:])
            assert (await read_answer(stream))[1] == b"".join(body)

        @settings(max_examples=60)
        @given(parts, st.integers(0, 10**6))
        def every(body: list[bytes], cut: int) -> None:
            trio.from_thread.run(check, body, cut)

        async with stream:
            await trio.to_thread.run_sync(every)


async def test_pipelined_requests_are_answered_in_order(fnt: Fnt) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(
            HEAD + b"Content-Length: 3\r\n\r\none" + HEAD + b"Content-Length: 3\r\n\r\ntwo"
        )
        both = b""
        while not both.endswith(b"two"):
            both += await stream.receive_some()
        assert both.index(b"\r\n\r\none") < both.index(b"\r\n\r\ntwo")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /call HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /other HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /call HTTP/1.0\r\nHost: x\r\n\r\n", 400),
        (b"POST /call HTTP/1.1\r\n\r\n", 400),
        (b"POST /call HTTP/1.1\nHost: x\n\n", 400),
        (HEAD + b"Host: y\r\n\r\n", 400),
        (HEAD + b"Name : x\r\n\r\n", 400),
        (HEAD + b": x\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (HEAD + b"X: " + b"x" * (1 << 20) + b"\r\n\r\n", 431),
    ],
)
async def test_bad_requests_are_refused(fnt: Fnt, request_bytes: bytes, status: int) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(request_bytes)
        head, _ = await read_answer(stream)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close" in head
        assert await is_closed(stream)


async def test_early_answer_comes_before_the_body(fnt: Fnt) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(HEAD + b"Content-Length: 200000\r\nFnt-Do: early;size=5\r\n\r\n")
        assert (await read_answer(stream))[1] == b"01234"
        await stream.send_all(b"x" * 200_000)
        await stream.send_all(HEAD + b"Content-Length: 4\r\n\r\nnext")
        assert (await read_answer(stream))[1] == b"next"


async def test_early_answer_and_close(fnt: Fnt) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(HEAD + b"Content-Length: 9\r\nFnt-Do: early=close;size=5\r\n\r\n")
        assert (await read_answer(stream))[1] == b"01234"
        assert await is_closed(stream)


async def test_close_while_the_body_arrives(fnt: Fnt) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(HEAD + b"Content-Length: 9\r\nFnt-Do: close=early\r\n\r\n")
        await stream.send_all(b"x")
        assert await is_closed(stream)


@pytest.mark.parametrize(
    ("do", "part"),
    [(b"lines=2,every=60000", b"\r\n7\r\nline 1\n\r\n"), (b"size=8;mid=60000", b"\r\n0123")],
)
async def test_parts_of_the_answer_arrive_at_once(fnt: Fnt, do: bytes, part: bytes) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(HEAD + b"Fnt-Do: %b\r\n\r\n" % do)
        data = b""
        while not data.endswith(part):
            data += await stream.receive_some()


async def test_extra_bytes_follow_the_answer(fnt: Fnt) -> None:
    async with await fnt.connect() as stream:
        await stream.send_all(
            HEAD + b"Fnt-Do: extra=surplus;close=after\r\nContent-Length: 2\r\n\r\nok"
        )
        assert await _read_to_end(stream) == b"oksurplus"


async def _read_to_end(stream: trio.SocketStream) -> bytes:
    data = b""
    async for part in stream:
        data += part
    return data.partition(b"\r\n\r\n")[2]


async def test_requests_leave_no_threads_or_files_behind(fnt: Fnt) -> None:
    """After all clients are gone, only the accepting thread is there."""

    def left() -> tuple[int, int]:
        process = Path(f"/proc/{fnt.process.pid}")
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    await fnt.client.aclose()
    async with await fnt.connect() as stream:
        await stream.send_all(HEAD + b"Fnt-Do: close\r\n\r\n")
        assert await is_closed(stream)
    idle = left()
    for do in (b"close", b"hang", b"garbage", b"sleep=1"):
        async with await fnt.connect() as stream:
            await stream.send_all(HEAD + b"Fnt-Do: %b\r\n\r\n" % do)
    # The last thread ends a moment after its client is gone.
    while left() > idle:  # noqa: ASYNC110  (another process's state: there is no event)
        await trio.sleep(0.001)
