"""A worker's place, its part of the machine, questions between workers.

One question a connection: its topic, a newline and its text; what comes back is the answer, behind
its length: the end of a worker that is killed meanwhile looks like that of an answer.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec
import structlog
import trio

from ..._concurrency.nurseries import open_background
from ...config import AgentConfig, BodyConfig, PlacerConfig

log = structlog.get_logger(__name__)

ASK_SECONDS = 2.0
"""A worker that has not answered by then is left out."""

MAX_QUESTION = 1 << 20

_BACKLOG = 128

_LENGTH_BYTES = 8

Answer = Callable[[bytes], Awaitable[bytes]]


class PeerWorkers:
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

    def each(self, topic: str) -> list[Answer]:
        """What asks each of the others for ``topic``, as `ask_one`."""
        place = self.place
        others = (number for number in range(place.count) if number != place.number)
        return [partial(self.ask_one, number, topic) for number in others]

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
                raise OSError(f"worker {number} closed the connection") from error
        if not data:
            raise OSError(f"worker {number} did not answer")
        answer = data[_LENGTH_BYTES:]
        if len(answer) != int.from_bytes(data[:_LENGTH_BYTES]):
            raise OSError(f"worker {number} closed the connection")
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
async def open_peers(place: Place) -> AsyncIterator[PeerWorkers]:
    """Answers the others while the block lasts."""
    peers, supervisor = PeerWorkers(place), os.getppid()
    path = place.socket_of(place.number)
    path.unlink(missing_ok=True)  # of a worker that was here before and had no time to
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        await listening.bind(str(path))
        listening.listen(_BACKLOG)
        try:
            async with open_background() as nursery:
                listener = trio.SocketListener(listening)
                nursery.start_soon(trio.serve_listeners, peers._serve, [listener])
                yield peers
                nursery.cancel_scope.cancel()
        finally:
            path.unlink(missing_ok=True)
            if os.getppid() != supervisor:  # it was killed, and nobody else removes the folder
                with suppress(OSError):  # (the last one can)
                    os.rmdir(place.folder)


class RunnerPart(msgspec.Struct, frozen=True, kw_only=True):
    """Of worker ``number`` among ``count``. All parts together are what one runner would have."""

    number: int
    count: int
    bind: str
    """Where it serves load balancers, and nobody else does."""
    memory: int
    """Bytes for its containers; not measured again when it is started again, as a runner that goes
    on does not."""
    cpus: int
    """Milli-CPUs for them."""
    family: str
    """Of all workers of this node, and of no other node."""

    def agent_config(self, config: AgentConfig) -> AgentConfig:
        """``config`` with this worker's part of what is for the machine.

        What is done once for an engine, loading an archive of images, is left to the first worker.
        """
        pool = config.experimental_prefork_pool_size
        return attrs.evolve(
            config,
            launch_concurrency=max(1, self._of(config.launch_concurrency)),
            experimental_prefork_pool_size=None if pool is None else self._of(pool),
            prepared_networks=self._of(config.prepared_networks),
            prepared_networks_limit=self._of(config.prepared_networks_limit),
            docker_load_file="" if self.number else config.docker_load_file,
        )

    def labelled(self, config: AgentConfig) -> AgentConfig:
        """``config`` with a label tag for containers, by which a worker finds those that its
        predecessor has left: nothing else would remove them."""
        return attrs.evolve(config, container_label_tag=config.container_label_tag or self.family)

    def instance_id(self) -> str:
        """A new one, for the labels of containers."""
        return f"{self.family}.{uuid.uuid4().hex}"

    def _of(self, total: int) -> int:
        return part_of(total, self.number, self.count)


def part_of(total: int, number: int, count: int) -> int:
    """The part of ``number``, from 0, of ``count`` that are as equal as whole numbers can be, the
    larger ones first."""
    return (total + count - 1 - number) // count


Config = TypeVar("Config", PlacerConfig, BodyConfig)

VARIABLE = "HOSTLER_WORKER"
"""Of the environment of a worker, set by its supervisor only."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One of ``count`` workers. Descriptors are inherited."""

    number: int
    """From 0."""
    count: int
    listeners: tuple[int, ...]
    """Listening sockets, which no other worker has."""
    ready: int
    """Gets the line with the addresses once the worker takes calls."""
    orders: int
    """A pipe from the supervisor, see `hostler.cli.process`."""
    folder: str
    """Where the sockets of all workers are, on which they ask each other."""
    part: RunnerPart | None = None
    """If it is a runner."""

    def text(self) -> str:
        """For `VARIABLE`."""
        return msgspec.json.encode(self).decode()

    def open_listeners(self) -> list[trio.SocketListener]:
        """The listening sockets; the caller closes them."""
        return [
            trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=number)))
            for number in self.listeners
        ]

    def part_of(self, config: Config, *limits: str) -> Config:
        """``config`` with this worker's part, rounded up, of ``limits`` of the node as a whole."""
        parts = {limit: -(-getattr(config, limit) // self.count) for limit in limits}
        return attrs.evolve(config, **parts)

    def socket_of(self, number: int) -> Path:
        """Path of the socket on which worker ``number`` (from 0) answers; it may not be there
        yet."""
        return Path(self.folder, f"{number}.sock")


def place_in(env: Mapping[str, str]) -> Place | None:
    """``None`` if the process is no worker."""
    text = env.get(VARIABLE)
    return None if text is None else msgspec.json.decode(text, type=Place)
