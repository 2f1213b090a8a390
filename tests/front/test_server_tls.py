"""The HTTP server with TLS."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio
import trustme

from hostler import wire
from hostler.abc import PKIData
from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.errors import ConfigError
from tests.wire.certificates import Files, fresh

from ._agent import ScriptedAgent, echo
from ._handlers import answering
from ._sockets import CHUNKED, Client, Front, chunk, open_front, until


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pki(tmp_path: Path, ca: trustme.CA) -> PKIData:
    files = Files(tmp_path / "tls").write(ca, cert=ca.issue_cert("localhost"))
    return PKIData("", files.pki.key, files.pki.cert)


@attrs.define
class Secured:
    """A front end that speaks TLS, and whom its clients trust; ``None`` = they speak none."""

    front: Front
    trust: ssl.SSLContext | None

    async def connect(self) -> Client:
        stream: Any = await trio.open_tcp_stream("127.0.0.1", self.front.port)
        if self.trust is not None:
            stream = trio.SSLStream(
                stream, self.trust, server_hostname="localhost", https_compatible=True
            )
        client = Client(stream)
        self.front.clients.append(client)
        return client


@asynccontextmanager
async def secured(
    tls: PKIData | wire.TLSFiles,
    ca: trustme.CA,
    agent: ScriptedAgent | None = None,
    config: NodeConfig | None = None,
) -> AsyncIterator[Secured]:
    used = wire.http_tls(tls) if isinstance(tls, PKIData) else tls
    async with open_front(agent, config=config, tls=used) as front:
        yield Secured(front, trusting(ca))


async def test_many_requests_some_of_them_at_once(pki: PKIData, ca: trustme.CA) -> None:
    async with secured(pki, ca) as ends:
        client = await ends.connect()
        for number in range(20):
            body = b"%d" % number
            answer = await client.post(body)
            assert (answer.status, answer.body) == (200, body)
        request = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d"
        await client.send(b"".join(request % number for number in range(5)))
        assert [(await client.answer()).body for _ in range(5)] == [b"%d" % n for n in range(5)]
        assert ends.front.server.statistics().connections == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_large_bodies_both_ways(
    pki: PKIData, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    body = os.urandom(5_000_000)
    async with secured(pki, ca) as ends:
        assert ends.trust is not None
        ends.trust.maximum_version = version
        client = await ends.connect()
        head = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, head % len(body) + body)
            assert (await client.answer()).body == body


async def test_a_client_that_reads_late_gets_every_byte_once(pki: PKIData, ca: trustme.CA) -> None:
    body = os.urandom(8_000_000)
    async with secured(pki, ca, ScriptedAgent(answering(body))) as ends:
        client = await ends.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await ends.front.agent.entered.wait()
        await until(lambda: bool(ends.front.agent.running))
        await trio.testing.wait_all_tasks_blocked(0.05)  # the server waits for the client
        assert (await client.answer()).body == body


async def test_a_response_streams_while_its_request_does(pki: PKIData, ca: trustme.CA) -> None:
    async with secured(pki, ca) as ends:
        client = await ends.connect()
        await client.send(CHUNKED + chunk(b"one"))
        assert isinstance(await client.event(), h11.Response)
        first = await client.event()
        assert isinstance(first, h11.Data)
        assert bytes(first.data) == b"one"
        await client.send(chunk(b"two") + b"0\r\n\r\n")
        second = await client.event()
        assert isinstance(second, h11.Data)
        assert bytes(second.data) == b"two"


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_cancels_its_call(
    pki: PKIData, ca: trustme.CA, *, politely: bool
) -> None:
    async def hang(call: PendingCall) -> None:
        await trio.sleep_forever()

    async with secured(pki, ca, ScriptedAgent(hang)) as ends:
        client = await ends.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await ends.front.agent.entered.wait()
        if politely:
            await client.stream.aclose()
        else:
            await trio.aclose_forcefully(client.stream)
        await ends.front.agent.left.wait()
        assert ends.front.agent.record == ["cancelled"]


async def test_the_end_of_a_response_of_unknown_length_is_told(
    pki: PKIData, ca: trustme.CA
) -> None:
    async with secured(pki, ca) as ends:
        client = await ends.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert (await client.read_all()).endswith(b"\r\n\r\nhi")


async def test_who_sends_much_before_it_reads_gets_to_read_its_refusal(
    pki: PKIData, ca: trustme.CA
) -> None:
    async with secured(pki, ca) as ends:
        client = await ends.connect()
        size = 20_000_000
        await client.send(
            b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        )
        await client.send(bytes(size))
        assert (await client.answer()).status == 413


async def test_who_speaks_no_tls_is_told(pki: PKIData, ca: trustme.CA) -> None:
    async with secured(pki, ca) as ends:
        ends.trust = None
        client = await ends.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.read_all()
        assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert answer.endswith(b"\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        client = await ends.connect()
        await client.send(b"\x00" * 1000)
        await client.closed_by_server()
        await ends.front.wait_connections(0)


async def test_a_handshake_has_the_time_of_a_head(pki: PKIData, ca: trustme.CA) -> None:
    config = NodeConfig(request_header_read_timeout=0.2)
    async with secured(pki, ca, config=config) as ends:
        ends.trust = None
        client = await ends.connect()
        assert await client.closed_by_server()
        client = await ends.connect()
        await client.send(b"\x16\x03\x01\x02\x00")  # the begin of a record
        assert await client.closed_by_server()


async def test_a_drain_lets_a_request_end_and_closes_what_is_idle(
    pki: PKIData, ca: trustme.CA
) -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        if (
            call.model.id == ends.front.agent.submitted[-1].model.id
            and len(ends.front.agent.submitted) == 3
        ):
            await go_on.wait()
        await echo(call)

    async with secured(pki, ca, ScriptedAgent(handler)) as ends:
        idle, busy = await ends.connect(), await ends.connect()
        for client in (idle, busy):
            assert (await client.post(b"x")).status == 200
        async with trio.open_nursery() as nursery:

            async def last() -> None:
                answer = await busy.post(b"last")
                assert (answer.status, answer.body) == (200, b"last")

            nursery.start_soon(last)
            await until(lambda: len(ends.front.agent.submitted) == 3)
            ends.front.shutdown.set()
            assert await idle.closed_by_server()
            go_on.set()
        await ends.front.done.wait()


async def test_changed_files_are_used_from_the_next_connection_on(
    tmp_path: Path, pki: PKIData, ca: trustme.CA
) -> None:
    tls = wire.TLSFiles(pki, wire.http_tls, metrics=fresh())
    async with secured(tls, ca) as ends:
        old = await ends.connect()
        assert (await old.post(b"1")).body == b"1"
        other = trustme.CA()
        Files(tmp_path / "tls").write(other, cert=other.issue_cert("localhost"))
        assert tls.reload()
        with pytest.raises(trio.BrokenResourceError):
            await (await ends.connect()).post(b"2")
        ends.trust = trusting(other)
        assert (await (await ends.connect()).post(b"3")).body == b"3"
        assert (await old.post(b"4")).body == b"4"


def test_files_that_cannot_be_used(tmp_path: Path, pki: PKIData) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(ConfigError, match=f"Cannot stat {gone} for TLS"):
        wire.http_tls(PKIData("", pki.key, gone))
    with pytest.raises(ConfigError, match="are no certificate and its key"):
        wire.http_tls(PKIData("", pki.cert, pki.key))
    with pytest.raises(ConfigError, match="needs both FN_HTTP_TLS_CERT and FN_HTTP_TLS_KEY"):
        NodeConfig(http_tls_cert=pki.cert)
