"""Calling a function's socket, and the contract suite's simulated function."""

from __future__ import annotations

import json
import os
import signal

import attrs
import h11
import inotify_simple  # type: ignore[import-untyped]  # it has no stubs
import trio

from ..drivers.sim import SimContainer, SimDriver, SimExit, SimImage, SimRequest, SimResponse
from ..errors import HostlerError
from ..protocol import Headers

SOCKET_NAME = "lsnr.sock"
"""What a ready function shows in its socket directory (reference: the function contract)."""

_READ_SIZE = 65536


@attrs.frozen
class FunctionAnswer:
    """What a function answered. Header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The first value of ``name`` (lower case), "" without one."""
        return next((value for key, value in self.headers if key == name), "")


class ScriptBroke(HostlerError):
    """The function closed its connection before its answer was complete."""


class ReadyWatch:
    """Sees ``lsnr.sock`` (or ``name``) appear in ``folder``. Make it before the container
    starts. A file that is renamed into place is seen too."""

    def __init__(self, folder: str, name: str = SOCKET_NAME) -> None:
        self._path = os.path.join(folder, name)
        self._inotify = inotify_simple.INotify(nonblocking=True)
        flags = inotify_simple.flags
        self._inotify.add_watch(folder, flags.CREATE | flags.MOVED_TO)

    def __enter__(self) -> ReadyWatch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inotify.close()

    async def ready(self) -> str:
        """Wait for it and return its path. Waits for ever if it never appears."""
        while not os.path.lexists(self._path):  # noqa: ASYNC240  (a single lstat)
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            self._inotify.read(timeout=0)
        await trio.lowlevel.checkpoint()
        return self._path


async def call_function(path: str, body: bytes = b"", headers: Headers = ()) -> FunctionAnswer:
    """Send one ``POST /call`` to the function behind ``path`` on a connection of its own.

    Raises `ScriptBroke`, or ``OSError`` if nobody listens. Cancelling closes the connection.
    """
    head = h11.Request(
        method="POST",
        target="/call",
        headers=[("Host", "localhost"), ("Content-Length", str(len(body))), *headers],
    )
    async with await trio.open_unix_socket(path) as stream:
        connection = h11.Connection(h11.CLIENT)
        out = [connection.send(e) for e in (head, h11.Data(data=body), h11.EndOfMessage())]
        try:
            await stream.send_all(b"".join(piece or b"" for piece in out))
            return await _receive(connection, stream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise ScriptBroke(f"no complete answer from {path}") from error


async def _receive(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> FunctionAnswer:
    head: h11.Response | None = None
    pieces: list[bytes] = []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_SIZE)))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            pairs = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
            return FunctionAnswer(head.status_code, pairs, b"".join(pieces))
        elif isinstance(event, h11.ConnectionClosed):
            raise ScriptBroke("the function closed its connection")


_ABORTED = 128 + signal.SIGABRT


def _orders(text: str) -> dict[str, str]:
    """``key=value;key`` as a dict."""
    pairs = (item.partition("=") for item in text.split(";") if item)
    return {key: value for key, _, value in pairs}


async def _start(container: SimContainer) -> None:
    orders = _orders(container.env.get("FNT_START", ""))
    if "exit" in orders:
        raise SimExit(int(orders["exit"]))
    if "crash" in orders:
        raise SimExit(_ABORTED)
    if "hang" in orders:
        await trio.sleep_forever()


async def _answer(request: SimRequest) -> SimResponse:
    orders = _orders(request.header("fnt-do"))
    for key in ("out", "err"):
        if key in orders:
            request.container.output(orders[key].encode() + b"\n", stderr=key == "err")
    body = await request.read()
    if "exit" in orders:
        raise SimExit(int(orders["exit"]))
    if "crash" in orders:
        raise SimExit(_ABORTED)
    if "hang" in orders:
        await trio.sleep_forever()
    if "env" in orders:
        body = json.dumps({"env": request.container.env}).encode()
    return SimResponse(body=body)


def add_sim_function(driver: SimDriver, name: str = "function") -> SimImage:
    """Give a sim driver the image that `DriverSubject.image` asks for."""
    return driver.add_image(name, _answer, start_hook=_start)
