"""What happens in callbacks of the asyncio loop ends one connection at most, never the loop."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from h2.events import RequestReceived
from h2.settings import SettingCodes

from hostler import wire
from hostler.protocol import Data, EngagementEnded, EngagementFailed, NotSent
from hostler.wire import Keepalive
from hostler.wire.connection import WireConnection, WireProtocol, _Processor

from .leaks import settle
from .peer import Peer, peer_and_client
from .services import TRY, call, open_pair


def take_any_amount(peer: Peer) -> None:
    """As far as flow control goes."""
    peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    peer.h2.increment_flow_control_window(2**31 - 1 - 65535)


BROKEN_FRAME = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"
"""WINDOW_UPDATE by zero."""


async def test_a_peer_that_breaks_the_protocol_and_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection can't flush, so that it stays until it is checked."""
    keepalive = wire.Keepalive(interval=0.05, timeout=0.05)
    protocols: list[WireProtocol] = []
    checked = trio.Event()
    check_idle = WireProtocol._check_idle

    def check(protocol: WireProtocol) -> None:
        # Only then the connection is both closing and silent.
        protocol.heard = not protocol.connection.is_closing()
        if protocol.connection.is_closing():
            protocols.append(protocol)
            checked.set()
        check_idle(protocol)

    monkeypatch.setattr(WireProtocol, "_check_idle", check)

    async def send_on(engaged: Any) -> None:
        with pytest.raises(EngagementEnded):  # noqa: PT012  (until it fails)
            while True:
                await engaged.send(Data(bytes(1_000_000)))

    async with peer_and_client(take_any_amount, keepalive) as (peers, client):
        async with client.engage(TRY) as engaged, trio.open_nursery() as nursery:
            peer = await peers.receive()
            await peer.next(RequestReceived)
            nursery.start_soon(send_on, engaged)
            await settle(lambda: _stuck(client), True)
            await peer.stream.send_all(BROKEN_FRAME)
            with pytest.raises(EngagementFailed, match="Protocol error"):
                await engaged.receive()
        await checked.wait()
        await protocols[0].lost.wait()
        assert client.statistics().connections == 0
        async with client.engage(TRY):
            await (await peers.receive()).next(RequestReceived)


def _stuck(client: wire.GrpcRunnerClient) -> bool:
    """Whether the transport has more than the kernel takes."""
    return not client._pool._slots[0].protocol.connection.write_ready.is_set()


def _boom(*args: object) -> None:
    raise RuntimeError("bug")


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
async def test_an_error_in_flow_control(
    name: str, logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pair() as pair:
        await call(pair.client)
        monkeypatch.setattr(WireConnection, name, _boom)
        with pytest.raises((EngagementEnded, EngagementFailed)):
            await call(pair.client, bytes(20_000_000))
        monkeypatch.undo()
        assert len(await call(pair.client)) > 0
        await settle(lambda: len(pair.server.connections), 1)
    names = {logs.expect_error("connection failed")["during"]}
    while logs.errors():  # of the other end, or of its next connection
        names.add(logs.expect_error("connection failed")["during"])
    assert names == {name}


async def test_an_error_in_a_timer(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keepalive = wire.Keepalive(interval=0.05, timeout=60)
    async with (
        peer_and_client(take_any_amount, keepalive) as (peers, client),
        client.engage(TRY) as engaged,
    ):
        await peers.receive()
        monkeypatch.setattr(client._pool._slots[0].protocol.connection.h2, "ping", _boom)
        with pytest.raises(EngagementFailed, match="internal error"):
            await engaged.receive()
    assert logs.expect_error("connection failed")["during"] == "_check_idle"


async def test_an_error_at_the_loss(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        await call(pair.client)
        protocol = pair.client._pool._slots[0].protocol
        monkeypatch.setattr(protocol.processor, "close", _boom)
        protocol.connection.transport.abort()
        await settle(lambda: pair.client.statistics().connections, 0)
        assert len(await call(pair.client)) > 0
    assert logs.expect_error("connection failed")["during"] == "connection_lost"


async def test_an_error_at_the_start(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        monkeypatch.setattr(Keepalive, "set_options", _boom)
        with pytest.raises(NotSent):
            await call(pair.client)
        monkeypatch.undo()
        assert len(await call(pair.client)) > 0
    assert logs.expect_error("connection failed")["during"] == "connection_made"
    while logs.errors():  # of the other end
        assert logs.expect_error("connection failed")["during"] == "connection_made"


async def test_a_connection_reports_one_error(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Processor, "process", _boom)
    async with open_pair() as pair:
        with pytest.raises(NotSent):
            await call(pair.client)
    own = [e for e in logs.errors() if e["peer"] == pair.server.address]
    assert len(own) == 1
    while logs.errors():
        logs.expect_error("connection failed")
