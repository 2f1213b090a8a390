"""The HTTP/1.1 server inside a simulated container."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import TYPE_CHECKING

import h11
import trio

from hostler.protocol import Headers

from ._image import SimDisconnect, SimResponse

if TYPE_CHECKING:
    from ._container import SimContainer

_READ_SIZE = 65536


class SimRequest:
    """One request, as a handler sees it. The body is read from the socket only when asked for."""

    def __init__(self, connection: _Connection, head: h11.Request) -> None:
        self._connection = connection
        self._over = False
        self.method = head.method.decode()
        self.target = head.target.decode()
        self.headers: Headers = [(n.decode(), v.decode("latin-1")) for n, v in head.headers]

    @property
    def container(self) -> SimContainer:
        return self._connection.container

    def header(self, name: str) -> str:
        """The first value of ``name`` (any case), "" without one."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key == wanted), "")

    async def receive_some(self) -> bytes:
        """The next piece of the body, b"" at its end.

        Raises `SimDisconnect` if the caller goes away, which a handler need not catch.
        """
        if self._over:
            return b""
        event = await self._connection.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._over = True
        if not isinstance(event, h11.EndOfMessage):
            raise SimDisconnect
        return b""

    async def read(self) -> bytes:
        """The rest of the body."""
        pieces = []
        while piece := await self.receive_some():
            pieces.append(piece)
        return b"".join(pieces)

    async def send_raw(self, data: bytes) -> None:
        """Put bytes on the connection as they are, for answers that are not HTTP."""
        await self._connection.send_raw(data)


class _Connection:
    """h11 over one accepted stream; nothing passes while the container is frozen."""

    def __init__(self, stream: trio.abc.Stream, container: SimContainer) -> None:
        self.container = container
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                assert event is h11.PAUSED or isinstance(event, h11.Event)
                return event
            if self._h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._stream.receive_some(_READ_SIZE)
            await self.container.thawed()
            self._h11.receive_data(bytes(data))

    async def send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self.send_raw(data)

    async def send_raw(self, data: bytes) -> None:
        await self.container.thawed()
        await self._stream.send_all(data)

    async def respond(self, response: SimResponse) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
        body = response.body
        if isinstance(body, bytes):
            headers.append((b"content-length", b"%d" % len(body)))
        await self.send(h11.Response(status_code=response.status, headers=headers))
        if isinstance(body, bytes):
            await self.send(h11.Data(data=body))
        else:
            await self._stream_body(body)
        await self.send(h11.EndOfMessage())

    async def _stream_body(self, pieces: AsyncIterable[bytes]) -> None:
        iterator = aiter(pieces)
        try:
            async for piece in iterator:
                await self.send(h11.Data(data=piece))
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def serve(self) -> None:
        """Serve requests one after the other until either side closes."""
        while isinstance(head := await self.next_event(), h11.Request):
            request = SimRequest(self, head)
            self.container.note_request()
            await self.respond(await self.container.image.handler(request))
            while await request.receive_some():
                pass  # what the handler left unread, as Go's server does
            if self._h11.our_state is h11.MUST_CLOSE:
                return
            self._h11.start_next_cycle()


async def serve_stream(stream: trio.abc.Stream, container: SimContainer) -> None:
    """Serve one accepted stream and close it. Raises only what a handler raised."""
    async with stream:
        try:
            await _Connection(stream, container).serve()
        except (SimDisconnect, trio.BrokenResourceError, h11.RemoteProtocolError):
            return
