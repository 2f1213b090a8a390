"""Questions between the workers of a node, over unix sockets in a folder that only they can enter.

One question a connection: its topic, a newline and its text; what comes back is the answer, behind
its length: the end of a worker that is killed meanwhile looks like that of an answer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog
import trio

from hostler._concurrency.nurseries import open_background

from ._place import Place

log = structlog.get_logger(__name__)

ASK_SECONDS = 2.0
"""A worker that has not answered by then is left out."""
MAX_QUESTION = 1 << 20
_BACKLOG = 128
_LENGTH_BYTES = 8

Answer = Callable[[bytes], Awaitable[bytes]]


class Colleagues:
    """The other workers of a node, for the one at ``place``."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._answers: dict[str, Answer] = {}

    def answer(self, topic: str, answer: Answer) -> None:
        """What the others hear who ask for ``topic``."""
        self._answers[topic] = answer

    async def ask(self, topic: str, question: bytes = b"") -> dict[int, bytes]:
        """What the others answer, by their numbers. Raises nothing: who does not answer within
        `ASK_SECONDS`, as while it is started again, is not there."""
        answers: dict[int, bytes] = {}

        async def ask_one(number: int) -> None:
            try:
                answers[number] = await self.ask_one(number, topic, question)
            except OSError as error:
                log.debug("worker does not answer", number=number, reason=str(error))

        with trio.move_on_after(ASK_SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(self.place.count):
                    if number != self.place.number:
                        nursery.start_soon(ask_one, number)
        return answers

    async def ask_one(self, number: int, topic: str, question: bytes) -> bytes:
        """What one of them answers, whenever that is. Raises `OSError`, also for an answer that was
        broken off."""
        stream = await trio.open_unix_socket(str(self.place.socket_of(number)))
        async with stream:
            try:
                await stream.send_all(topic.encode() + b"\n" + question)
                await stream.send_eof()
                data = b"".join([data async for data in stream])
            except trio.BrokenResourceError as error:
                raise OSError(f"worker {number} has broken off") from error
        if not data:
            raise OSError(f"worker {number} has no answer")
        answer = data[_LENGTH_BYTES:]
        if len(answer) != int.from_bytes(data[:_LENGTH_BYTES]):
            raise OSError(f"worker {number} has broken off")
        return answer

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One question. A worker that asks has its own limit of time, so it is not ours to end."""
        try:
            async with stream:
                asked = bytearray()
                async for data in stream:
                    asked += data
                    if len(asked) > MAX_QUESTION:
                        return
                topic, _, question = bytes(asked).partition(b"\n")
                if (make := self._answers.get(topic.decode())) is not None:
                    answer = await make(question)
                    await stream.send_all(len(answer).to_bytes(_LENGTH_BYTES) + answer)
        except trio.BrokenResourceError as error:
            log.debug("a worker asked and left", reason=str(error))
        except Exception:  # one question must not end the others
            log.exception("a worker's question failed")


@asynccontextmanager
async def open_colleagues(place: Place) -> AsyncIterator[Colleagues]:
    """Answers the others while the block lasts."""
    colleagues, supervisor = Colleagues(place), os.getppid()
    path = place.socket_of(place.number)
    path.unlink(missing_ok=True)  # of a worker that was here before and had no time to
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        await listening.bind(str(path))
        listening.listen(_BACKLOG)
        try:
            async with open_background() as nursery:
                listener = trio.SocketListener(listening)
                nursery.start_soon(trio.serve_listeners, colleagues._serve, [listener])
                yield colleagues
                nursery.cancel_scope.cancel()
        finally:
            path.unlink(missing_ok=True)
            if os.getppid() != supervisor:  # it was killed, and nobody else removes the folder
                with suppress(OSError):  # (the last one can)
                    os.rmdir(place.folder)
