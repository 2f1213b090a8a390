"""Lines of all worker processes of a node."""

from __future__ import annotations

import heapq
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

import attrs
import msgspec
import trio

from .ring import MAX_BATCH_LINES, LogTail, TailLine, Where


class LineDocument(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One line. Bytes of it that are no UTF-8 are replaced."""

    at: float
    """Seconds since 1970."""
    app_id: str
    fn_id: str
    call_id: str
    """The call that the container worked on, or worked on last; "" = before the first one."""
    container_id: str
    stream: str
    """``stdout`` or ``stderr``."""
    line: str


class LostDocument(msgspec.Struct, frozen=True, gc=False):
    """In the place of lines, of whatever function, that went before the reader took them."""

    lost: int


def document_of(line: TailLine) -> LineDocument:
    source = line.source
    return LineDocument(
        at=round(line.at, 3),
        app_id=source.app_id,
        fn_id=source.fn_id,
        call_id=source.call_id,
        container_id=source.container_id,
        stream="stderr" if line.is_stderr else "stdout",
        line=line.data.decode(errors="replace").removesuffix("\r"),
    )


def encoded(lost: int, lines: list[LineDocument]) -> bytes:
    """Newline-delimited JSON."""
    documents: list[LineDocument | LostDocument] = [*lines]
    if lost:
        documents.insert(0, LostDocument(lost))
    return b"".join(msgspec.json.encode(document) + b"\n" for document in documents)


WAIT_SECONDS = 15.0
"""By then a question that waits for lines is answered, so that it ends if its asker has left. A
follower gets an empty line then: it sees that it is connected, and the node sees whether the
follower still takes what comes."""

ANSWER_SECONDS = 2.0
"""A process that does not answer a question by then is left out."""

LAST_ANSWER_SECONDS = 0.5
"""The same while the node drains, so that a reader has time to take the rest."""

AGAIN_SECONDS = 1.0
"""Until a process that does not answer is asked again."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends a question to the `AggregateTail.answer` of another process and returns the answer. Raises
`OSError` if there is no answer, or only a part."""

Send = Callable[[bytes], Awaitable[None]]


class LineCursor(msgspec.Struct, frozen=True, array_like=True):
    process: str
    """The process whose lines ``number`` counts. A restarted process has a new one."""
    number: int


class Question(msgspec.Struct, frozen=True, array_like=True):
    where: Where
    cursor: LineCursor | None
    """``None`` = the first question: it asks for the last ``lines``, or all."""
    lines: int | None
    wait: bool
    """Whether to wait for a line if there is none."""


class LinePage(msgspec.Struct, frozen=True, array_like=True):
    """Some lines of one process, the oldest first."""

    cursor: LineCursor
    end: int
    """Number of the cursor behind the newest line."""
    ahead: int
    """In answer to a first question: how many of the last ``lines`` are kept, these included."""
    lost: int
    lines: list[LineDocument]


Source = Callable[[Question], Awaitable[LinePage]]


class AggregateTail:
    """The lines of all processes of a node: those of ``tail`` in this one, and those that
    ``others`` tell."""

    def __init__(self, tail: LogTail, others: Sequence[Ask] = ()) -> None:
        self._tail = tail
        self._others = [partial(_asked, ask) for ask in others]
        self._process = secrets.token_hex(8)

    def reading(self, where: Where, lines: int | None) -> Reading:
        """For one reader, from the last ``lines`` on (``None`` = from the oldest line)."""
        own = _Way(self._page, where, lines, patience=math.inf)
        others = [_Way(ask, where, lines, patience=ANSWER_SECONDS) for ask in self._others]
        return Reading([own, *others], lines)

    async def answer(self, question: bytes) -> bytes:
        """Answer the question of another process."""
        asked = msgspec.msgpack.decode(question, type=Question)
        return msgspec.msgpack.encode(await self._page(asked))

    async def _page(self, asked: Question) -> LinePage:
        """This process's next lines behind the question's cursor, at most 1000 of them searched. If
        there is none and the question says ``wait``, waits for a line. May be empty."""
        await trio.lowlevel.checkpoint()  # many lines must not hold up what else the node does
        number, ahead = self._begin(asked)
        batch = self._tail.read(number, asked.where)
        if asked.wait:
            with trio.move_on_after(WAIT_SECONDS):
                while not (batch.lines or batch.lost):
                    await trio.lowlevel.checkpoint()  # nobody waits behind many lines of others
                    await self._tail.wait(batch.cursor)
                    batch = self._tail.read(batch.cursor, asked.where)
        return LinePage(
            LineCursor(self._process, batch.cursor),
            end=self._tail.end,
            ahead=ahead,
            lost=batch.lost,
            lines=[*map(document_of, batch.lines)],
        )

    def _begin(self, asked: Question) -> tuple[int, int]:
        if asked.cursor is not None and asked.cursor.process == self._process:
            return asked.cursor.number, 0
        if asked.cursor is None and asked.lines is not None:
            return self._tail.last(asked.lines, asked.where)
        return self._tail.begin, 0


async def _asked(ask: Ask, question: Question) -> LinePage:
    """Raises `OSError`."""
    answer = await ask(msgspec.msgpack.encode(question))
    return msgspec.msgpack.decode(answer, type=LinePage)


class Reading:
    """One reader's way through the lines of all processes."""

    def __init__(self, ways: Sequence[_Way], lines: int | None) -> None:
        self._ways = ways
        self._lines = lines

    async def catch_up(self, send: Send) -> None:
        """Pass on all lines that were not read yet, in the order of time.

        Keeps one page of each process, and asks for the next page once this one was passed on.
        """
        heads = [_Heads(way) for way in self._ways]
        limit, self._lines = self._lines, None  # what comes later is all new
        while True:
            async with trio.open_nursery() as nursery:
                for head in heads:
                    nursery.start_soon(head.fill)
            lost = sum(head.take_lost() for head in heads)
            surplus = 0 if limit is None else max(0, sum(head.ahead for head in heads) - limit)
            # What may come is newer than this, of each process.
            until = min((head.newest for head in heads if not head.over), default=math.inf)
            taken = heapq.merge(*(head.take(until) for head in heads), key=lambda line: line.at)
            for body in _pieces(lost, [*islice(taken, surplus, None)]):
                await send(body)
            if all(head.over and not head.lines for head in heads):
                return

    async def follow(self, send: Send) -> None:
        """Pass on new lines until `stop`, and an empty line in silence."""
        async with trio.open_nursery() as nursery:
            for way in self._ways:
                nursery.start_soon(way.follow, send)

    def stop(self) -> None:
        """Let `follow` end after the page that it is passing on, and let `catch_up` wait for other
        processes no longer than `LAST_ANSWER_SECONDS`."""
        for way in self._ways:
            way.stop()


@attrs.define
class _Way:
    """Through the lines of one process."""

    _source: Source
    _where: Where
    _lines: int | None
    _patience: float
    """Seconds to wait for an answer; ``inf`` for this process."""
    _cursor: LineCursor | None = None
    _until: float = math.inf
    """When it is too late for an answer."""
    _asking: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _waiting: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _stopped: bool = False

    async def next(self) -> LinePage | None:
        """The next page; ``None`` if there is no answer in time."""
        with trio.CancelScope() as self._asking, suppress(OSError):
            self._asking.deadline = min(self._until, trio.current_time() + self._patience)
            return await self._next(wait=False)
        return None

    async def follow(self, send: Send) -> None:
        while not self._stopped:
            page: LinePage | None = None
            with trio.CancelScope() as self._waiting:
                try:
                    page = await self._next(wait=True)
                except OSError:
                    await trio.sleep(AGAIN_SECONDS)  # it is started again, or the node stops
            if page is not None:
                await send(encoded(page.lost, page.lines) or b"\n")

    def stop(self) -> None:
        self._stopped = True
        self._waiting.cancel()
        if self._patience < math.inf:
            self._until = trio.current_time() + LAST_ANSWER_SECONDS
            self._asking.deadline = min(self._asking.deadline, self._until)

    async def _next(self, *, wait: bool) -> LinePage:
        page = await self._source(Question(self._where, self._cursor, self._lines, wait))
        self._cursor = page.cursor
        return page


@attrs.define
class _Heads:
    """The next lines of one process, and how many follow until the end as it was at first."""

    _way: _Way
    lines: deque[LineDocument] = attrs.Factory(deque[LineDocument])
    newest: float = -math.inf
    """Time of the newest of the ``lines``."""
    ahead: int = 0
    """Lines that are left of those that the first question asked for, these included."""
    over: bool = False
    """Whether these are the last lines."""
    _process: str = ""
    _end: int = 0
    _lost: int = 0

    async def fill(self) -> None:
        """Get lines, unless there are some or it is `over`."""
        while not self.lines and not self.over:
            page = await self._way.next()
            if page is None:
                self.over, self.ahead = True, 0
                return
            if page.cursor.process != self._process:  # the first time, or it was started again
                self._process = page.cursor.process
                self._end, self.ahead = page.end, page.ahead
            self.lines.extend(page.lines)
            self.newest = max((line.at for line in page.lines), default=-math.inf)
            self._lost += page.lost
            # They may be those of other functions: rather are a few lines too many shown.
            self.ahead = max(0, self.ahead - page.lost)
            if page.cursor.number >= self._end:
                self.over, self.ahead = True, min(self.ahead, len(self.lines))

    def take_lost(self) -> int:
        lost, self._lost = self._lost, 0
        return lost

    def take(self, until: float) -> list[LineDocument]:
        """The first lines, none newer than ``until``."""
        taken: list[LineDocument] = []
        while self.lines and self.lines[0].at <= until:
            taken.append(self.lines.popleft())
        self.ahead = max(0, self.ahead - len(taken))
        return taken


def _pieces(lost: int, lines: list[LineDocument]) -> Iterator[bytes]:
    for begin in range(0, max(len(lines), 1), MAX_BATCH_LINES):
        if body := encoded(0 if begin else lost, lines[begin : begin + MAX_BATCH_LINES]):
            yield body
