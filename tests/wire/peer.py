"""A server of HTTP/2 by hand, for what a well-behaved one does not do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event
from h2.settings import SettingCodes

from hostler import wire
from hostler.wire.connection import DEFAULT_KEEPALIVE, SHARED_CALLS_SETTING
from hostler.wire.http2 import with_setting


class Peer:
    """The server's side of one connection, as the test wants it."""

    def __init__(self, stream: trio.SocketStream, settings: dict[SettingCodes | int, int]) -> None:
        self.stream = stream
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.shared_calls = 0
        """To be announced with the first settings."""

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if self.shared_calls:
            end = 9 + int.from_bytes(data[:3], "big")
            settings = with_setting(data[:end], SHARED_CALLS_SETTING, self.shared_calls)
            data = settings + data[end:]
            self.shared_calls = 0
        await self.stream.send_all(data)

    async def next(self, kind: type[Event]) -> Event:
        """The next event of a kind, others are dropped."""
        return (await self.until(kind))[-1]

    async def until(self, kind: type[Event]) -> list[Event]:
        """The next event of a kind, and all before it."""
        found: list[Event] = []
        while True:
            for event in self.h2.receive_data(await self.stream.receive_some()):
                found.append(event)
                if isinstance(event, kind):
                    await self.flush()
                    return found
            await self.flush()


@asynccontextmanager
async def peer_and_client(
    prepare: Callable[[Peer], None] = lambda peer: None,
    keepalive: wire.Keepalive = DEFAULT_KEEPALIVE,
    **settings: int,
) -> AsyncIterator[tuple[trio.MemoryReceiveChannel[Peer], wire.GrpcRunnerClient]]:
    send, receive = trio.open_memory_channel[Peer](10)

    async def serve(stream: trio.SocketStream) -> None:
        peer = Peer(stream, {SettingCodes[name]: value for name, value in settings.items()})
        prepare(peer)
        await peer.flush()
        await send.send(peer)
        await trio.sleep_forever()

    with trio.fail_after(60):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        async with wire.open_loop() as loop, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            client = wire.GrpcRunnerClient(
                f"127.0.0.1:{port}",
                wire.ConnectOptions(connect_timeout=60, keepalive=keepalive),
                loop=loop,
            )
            yield receive, client
            await client.aclose()
            nursery.cancel_scope.cancel()
