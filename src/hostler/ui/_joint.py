"""The page of a node of several processes: each shows what all of them know."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from ._documents import State
from ._panel import Panel, StateSource
from ._share import Cursor, Share, state_of

AskOthers = Callable[[bytes], Awaitable[Mapping[int, bytes]]]
"""What the `JointPanel.answer` of each other process says to a question; those that don't answer in
time are left out. The keys are of no importance here."""


class _Question(msgspec.Struct, frozen=True, array_like=True):
    cursor: Cursor
    now: float


class JointPanel(StateSource):
    """``own`` is the part of this process, ``ask`` reaches the others."""

    def __init__(self, own: Panel, ask: AskOthers) -> None:
        self._own = own
        self._ask = ask

    async def state(self, cursor: Cursor) -> tuple[State, Cursor]:
        # One time for all, or a second that is over here and not yet there would lack theirs.
        question = _Question(cursor, time.time())
        answers = await self._ask(msgspec.msgpack.encode(question))
        shares = [
            await self._own.share(cursor, question.now),
            *(msgspec.msgpack.decode(answer, type=Share) for answer in answers.values()),
        ]
        return state_of(shares, cursor, question.now)

    async def answer(self, question: bytes) -> bytes:
        """To what another process asks."""
        asked = msgspec.msgpack.decode(question, type=_Question)
        return msgspec.msgpack.encode(await self._own.share(asked.cursor, asked.now))
