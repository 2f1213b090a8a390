"""A server of grpcio's with the health service, and a client of ours."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc  # type: ignore[import-untyped]
import trio

from hostler import wire


class Theirs:
    """A server of grpcio's with the health service. ``say`` what a watch shall get: a message, a
    status to end it with, or ``None`` to end it with OK."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._words: queue.Queue[bytes | grpc.StatusCode | None] = queue.Queue()
        handler = grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Watch": grpc.unary_stream_rpc_method_handler(self._watch)}
        )
        self._server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def say(self, *words: bytes | grpc.StatusCode | None) -> None:
        for word in words:
            self._words.put(word)

    def _watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.requests.append(request)
        while (word := self._words.get()) is not None:
            if isinstance(word, grpc.StatusCode):
                context.abort(word, "so it is")
            yield word

    def stop(self) -> None:
        self.say(None)
        self._server.stop(0).wait()


@asynccontextmanager
async def theirs() -> AsyncIterator[tuple[Theirs, wire.GrpcRunnerClient]]:
    with trio.fail_after(60):
        server = Theirs()
        try:
            async with wire.open_loop() as loop:
                client = wire.GrpcRunnerClient(
                    server.address, wire.ConnectOptions(connect_timeout=60), loop=loop
                )
                yield server, client
                await client.aclose()
        finally:
            server.stop()
