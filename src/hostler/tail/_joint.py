"""The last lines of a node of several processes: each of them tells those of all."""

from __future__ import annotations

import heapq
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import attrs
import msgspec
import trio

from ._documents import LineDocument, document_of, encoded
from ._ring import MAX_BATCH_LINES, LogTail, Where

WAIT_SECONDS = 10.0
"""By then a question that waits for lines is answered, so that it ends if its asker has left, and a
follower sees an empty line."""
ANSWER_SECONDS = 2.0
"""A process that does not answer another question by then is left out."""
AGAIN_SECONDS = 1.0
"""Until one that does not answer is asked again."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""What the `TailShare.answer` of another process says to a question. Raises `OSError` if it does
not answer."""
Send = Callable[[bytes], Awaitable[None]]


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    process: str
    """Of which the number is; of one that was started again all is new."""
    number: int


class Question(msgspec.Struct, frozen=True, array_like=True):
    where: Where
    cursor: Cursor | None
    """``None`` = the first one, for the last ``lines``, or all."""
    lines: int | None
    wait: bool
    """Whether to wait for a line if there is none."""


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Some lines of one process, the oldest first."""

    cursor: Cursor
    end: int
    """The cursor's number behind all that there are already."""
    lost: int
    lines: list[LineDocument]


Source = Callable[[Question], Awaitable[Page]]


class TailShare:
    """What one process tells of its lines."""

    def __init__(self, tail: LogTail) -> None:
        self._tail = tail
        self._process = secrets.token_hex(8)

    async def page(self, asked: Question) -> Page:
        await trio.lowlevel.checkpoint()  # many lines must not hold up what else the node does
        number = self._begin(asked)
        batch = self._tail.read(number, asked.where)
        if asked.wait:
            with trio.move_on_after(WAIT_SECONDS):
                while not (batch.lines or batch.lost):
                    await trio.lowlevel.checkpoint()  # nobody waits behind many lines of others
                    await self._tail.wait(batch.cursor)
                    batch = self._tail.read(batch.cursor, asked.where)
        return Page(
            Cursor(self._process, batch.cursor),
            end=self._tail.end,
            lost=batch.lost,
            lines=[*map(document_of, batch.lines)],
        )

    async def answer(self, question: bytes) -> bytes:
        """To what another process asks."""
        asked = msgspec.msgpack.decode(question, type=Question)
        return msgspec.msgpack.encode(await self.page(asked))

    def _begin(self, asked: Question) -> int:
        if asked.cursor is not None and asked.cursor.process == self._process:
            return asked.cursor.number
        if asked.cursor is None and asked.lines is not None:
            return self._tail.cursor_before(asked.lines, asked.where)
        return self._tail.begin


class JointTail:
    """``own`` is the part of this process, ``others`` reach the rest."""

    def __init__(self, own: TailShare, others: Sequence[Ask]) -> None:
        self._sources: list[Source] = [own.page, *(partial(_asked, ask) for ask in others)]

    def reading(self, where: Where, lines: int | None) -> Reading:
        """By one reader, from the last ``lines`` on (``None`` = all that are kept)."""
        return Reading([_Way(source, where, lines) for source in self._sources], lines)


async def _asked(ask: Ask, question: Question) -> Page:
    """Raises `OSError`."""
    answer = await ask(msgspec.msgpack.encode(question))
    return msgspec.msgpack.decode(answer, type=Page)


class Reading:
    """One reader's way through the lines of all processes."""

    def __init__(self, ways: Sequence[_Way], lines: int | None) -> None:
        self._ways = ways
        self._lines = lines

    async def catch_up(self, send: Send) -> None:
        """Pass on what there is that was not read yet, in the order of time."""
        found = [_Found() for _ in self._ways]
        async with trio.open_nursery() as nursery:
            for way, into in zip(self._ways, found, strict=True):
                nursery.start_soon(way.catch_up, into)
        merged = heapq.merge(*(each.lines for each in found), key=lambda line: line.at)
        limit, self._lines = self._lines, None  # what comes later is all new
        lost = sum(each.lost for each in found)
        for body in _pieces(lost, [*merged] if limit is None else [*deque(merged, limit)]):
            await send(body)

    async def follow(self, send: Send) -> None:
        """Pass on what comes, until `stop`, and an empty line in silence."""
        async with trio.open_nursery() as nursery:
            for way in self._ways:
                nursery.start_soon(way.follow, send)

    def stop(self) -> None:
        """Let `follow` end; what it has begun to pass on it does to the end."""
        for way in self._ways:
            way.stop()


@attrs.define
class _Found:
    lines: list[LineDocument] = attrs.Factory(list[LineDocument])
    lost: int = 0


@attrs.define
class _Way:
    """Through the lines of one process."""

    _source: Source
    _where: Where
    _lines: int | None
    _cursor: Cursor | None = None
    _asking: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _stopped: bool = False

    async def catch_up(self, into: _Found) -> None:
        """To the end as it is now, as far as it answers."""
        number, end = 0.0, math.inf
        while number < end:
            page: Page | None = None
            with trio.move_on_after(ANSWER_SECONDS), suppress(OSError):
                page = await self._next(wait=False)
            if page is None:
                return
            into.lines += page.lines
            into.lost += page.lost
            number, end = page.cursor.number, min(end, page.end)

    async def follow(self, send: Send) -> None:
        while not self._stopped:
            page: Page | None = None
            with trio.CancelScope() as self._asking:
                try:
                    page = await self._next(wait=True)
                except OSError:
                    await trio.sleep(AGAIN_SECONDS)  # it is started again, or the node stops
            if page is not None:
                await send(encoded(page.lost, page.lines) or b"\n")

    def stop(self) -> None:
        self._stopped = True
        self._asking.cancel()

    async def _next(self, *, wait: bool) -> Page:
        page = await self._source(Question(self._where, self._cursor, self._lines, wait))
        self._cursor = page.cursor
        return page


def _pieces(lost: int, lines: list[LineDocument]) -> Iterator[bytes]:
    for begin in range(0, max(len(lines), 1), MAX_BATCH_LINES):
        if body := encoded(0 if begin else lost, lines[begin : begin + MAX_BATCH_LINES]):
            yield body
