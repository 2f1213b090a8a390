"""An app's syslog URL, with real listeners behind the engine's syslog driver.

It is the engine that connects: the containers here have no network."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from hostler.abc import ContainerTask, RunResult
from hostler.errors import SyslogUnavailable

from .conftest import WAIT, Bench

pytestmark = pytest.mark.docker

MESSAGE = re.compile(rb"<(\d+)>1 \S+ \S+ app_id=app1,fn_id=fn1 \d+ app_id=app1,fn_id=fn1 - (.*)")
"""RFC 5424: priority, version, time, host, program, its number, id of the message, text."""
USER_INFO, USER_ERROR = b"14", b"11"
"""Facility "user" with the severities that the engine gives stdout and stderr."""

Receive = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def udp() -> AsyncIterator[tuple[str, Receive]]:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        yield f"udp://127.0.0.1:{sock.getsockname()[1]}", lambda: sock.recv(65536)


@asynccontextmanager
async def tcp() -> AsyncIterator[tuple[str, Receive]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[bytes](100)

        async def accept() -> None:
            async with await listener.accept() as stream:
                text = b""
                async for chunk in stream:
                    *lines, text = (text + chunk).split(b"\n")
                    for line in lines:
                        await send.send(line)

        nursery.start_soon(accept)
        yield f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}", receive.receive
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def unixgram(folder: Path) -> AsyncIterator[tuple[str, Receive]]:
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        await sock.bind(str(folder / "log.sock"))
        yield f"unixgram://{folder}/log.sock", lambda: sock.recv(65536)


def _task(bench: Bench, start: str, url: str) -> ContainerTask:
    return bench.task(start, syslog_url=url, app_id="app1", fn_id="fn1", disable_net=True)


OPEN: dict[str, Callable[[Path], AbstractAsyncContextManager[tuple[str, Receive]]]] = {
    "udp": lambda folder: udp(),
    "tcp": lambda folder: tcp(),
    "unixgram": unixgram,
}


@pytest.mark.parametrize("kind", OPEN)
async def test_a_listener_gets_the_lines_of_the_function(
    bench: Bench, open_folder: Path, kind: str
) -> None:
    async with OPEN[kind](open_folder) as (url, receive):
        task = _task(bench, "out=hello;err=oh no;exit=0", f" {url} ")
        assert await bench.run_to_end(task) == RunResult("success")
        with trio.fail_after(WAIT):
            received = {_parse(await receive()), _parse(await receive())}
    assert received == {(USER_INFO, b"hello"), (USER_ERROR, b"oh no")}


def _parse(line: bytes) -> tuple[bytes, bytes]:
    match = MESSAGE.fullmatch(line.rstrip(b"\n"))
    assert match is not None, line
    return match[1], match[2]


async def test_nobody_needs_to_listen_for_udp(bench: Bench) -> None:
    """A datagram that nobody takes is lost, and the function runs."""
    task = _task(bench, "out=hello;exit=0", "udp://127.0.0.1:1")
    assert await bench.run_to_end(task) == RunResult("success")


@pytest.mark.parametrize(
    "url",
    [
        "tcp://127.0.0.1:1",
        "tcp+tls://127.0.0.1:1",
        "udp://no-such-host.invalid:514",
        "foo://127.0.0.1:514",
        "no url at all",
        "unix:///there/is/none.sock",
    ],
)
async def test_unreachable(bench: Bench, url: str) -> None:
    """Reference 07 §8; the app's owner learns it also if the engine refuses the URL itself."""
    task = _task(bench, "exit=0", url)
    with pytest.raises(SyslogUnavailable, match="Syslog Unavailable") as caught:
        await bench.run_to_end(task)
    assert (caught.value.code, caught.value.blame) == (500, "user")
