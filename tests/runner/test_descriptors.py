"""A runner that has no file descriptors left."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from tests.conftest import Logs
from tests.support.http2 import open_peer

from .full import END, code_of, open_full, try_of


@contextmanager
def left(count: int) -> Iterator[None]:
    """So many descriptors may be opened within the block."""
    spare = [os.dup(0) for _ in range(count + 1)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in spare:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_clients_are_refused_before_the_last_descriptors_are_used(
    tmp_path: Path, logs: Logs
) -> None:
    async with open_full(tmp_path) as full, open_peer(full.runner.address) as peer:
        with left(8):
            clients = [await trio.open_tcp_stream(*_split(full.runner.address)) for _ in range(5)]
            for client in clients:
                with trio.fail_after(5):
                    assert not await _read(client)
            reply = await peer.request(try_of(), END)  # who is there is served
            await reply.done.wait()
            assert code_of(reply) == 503
        (line,) = logs.with_event("no room for another connection")
        assert "are for what is under way" in str(line["reason"])
        async with open_peer(full.runner.address) as late:
            reply = await late.request(try_of(), END)
            await reply.done.wait()
            assert code_of(reply) == 503
        for client in clients:
            await client.aclose()


async def test_without_any_descriptor_accepting_does_not_spin(tmp_path: Path, logs: Logs) -> None:
    turns = 0

    class Turns(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            nonlocal turns
            turns += 1

    async with open_full(tmp_path) as full:
        with left(1):  # for the client's own end
            client = await trio.open_tcp_stream(*_split(full.runner.address))
            trio.lowlevel.add_instrument(counter := Turns())
            await trio.sleep(0.5)
            trio.lowlevel.remove_instrument(counter)
        assert turns < 50
        assert len(logs.with_event("no room for another connection")) == 1
        await client.aclose()


async def _read(client: trio.SocketStream) -> bytes:
    """What comes until the server closes, which it may do with a reset."""
    data = b""
    try:
        while more := await client.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
