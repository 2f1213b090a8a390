"""Mutual TLS, and the reasons for which it fails."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from hostler import wire
from hostler._fast import FastService
from hostler.config.addresses import split_address
from hostler.errors import ConfigError
from hostler.protocol import Finished, NotSent, ServerEngagement, TryCall
from hostler.wire import connection_pool
from hostler.wire import server as server_module
from hostler.wire.codec import messages as codec
from tests.support.http2 import open_peer

from .certificates import issued
from .leaks import asyncio_tasks, open_sockets, settle
from .services import TRY, Service, body_of, call


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


async def test_calls_over_tls(tmp_path: Path, ca: trustme.CA) -> None:
    runner, lb = issued(tmp_path, "runner.test", ca), issued(tmp_path, "lb.test", ca)
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            context = wire.server_tls(runner)
            async with wire.open_server(
                Service(), "127.0.0.1:0", wire.ServerOptions(ssl_context=context), loop=loop
            ) as server:
                client = wire.GrpcRunnerClient(
                    server.address,
                    wire.ConnectOptions(ssl_context=wire.client_tls(lb), server_name="runner.test"),
                    loop=loop,
                )
                body = b"x" * 1_000_000
                assert body_of(await call(client, body)) == body
                await client.aclose()
            await settle(open_sockets, sockets)
            assert asyncio_tasks(loop) == 0


class _Refuses(Service, FastService):
    def begin_engage(self, engagement: ServerEngagement, first: TryCall) -> Finished:
        return Finished(success=False, error_code=503)


@pytest.mark.fast
async def test_many_calls_that_come_at_once_over_tls_are_refused(
    tmp_path: Path, ca: trustme.CA
) -> None:
    """More than are read in a turn."""
    runner, lb = issued(tmp_path, "runner.test", ca), issued(tmp_path, "lb.test", ca)
    service = _Refuses()
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(
                service,
                "127.0.0.1:0",
                wire.ServerOptions(ssl_context=wire.server_tls(runner)),
                loop=loop,
            ) as server,
            open_peer(server.address, tls=wire.client_tls(lb), server_name="runner.test") as peer,
        ):
            for _ in range(3):
                frames, replies = [], []
                for _ in range(300):
                    data, number = peer.begin(codec.encode_client(TRY))
                    frames.append(data)
                    replies.append(peer.expect(number))
                assert await peer.send(b"".join(frames))
                for reply in replies:
                    await reply.done.wait()
                    assert reply.ended
    assert service.started == 0


@pytest.mark.parametrize(
    ("trouble", "reason", "server_reason"),
    [
        ("name", "Hostname mismatch", "closed by the peer during the handshake"),
        ("authority", "unable to get local issuer", "closed by the peer during the handshake"),
        ("client authority", "closed by the peer after the TLS", "certificate verify failed"),
        ("no certificate", "closed by the peer after the TLS", "peer did not return a certificate"),
        (
            "plain client",
            "closed by the peer|connection reset",
            "TLS: (http req|wrong vers)",
        ),
    ],
)
async def test_failing_handshakes_say_why_and_the_server_logs_one_line(
    tmp_path: Path,
    ca: trustme.CA,
    logs: list[dict[str, object]],
    trouble: str,
    reason: str,
    server_reason: str,
) -> None:
    other = trustme.CA()
    runner = issued(tmp_path, "runner.test", other if trouble == "authority" else ca, ca)
    lb = issued(tmp_path, "lb.test", other if trouble == "client authority" else ca, ca)
    context: ssl.SSLContext | None = wire.client_tls(lb)
    if trouble == "no certificate":
        context = ssl.create_default_context(cafile=lb.ca)
    if trouble == "plain client":
        context = None
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(
                Service(),
                "127.0.0.1:0",
                wire.ServerOptions(ssl_context=wire.server_tls(runner)),
                loop=loop,
            ) as server,
        ):
            name = "other.test" if trouble == "name" else "runner.test"
            client = wire.GrpcRunnerClient(
                server.address,
                wire.ConnectOptions(ssl_context=context, server_name=name),
                loop=loop,
            )
            with pytest.raises(NotSent, match=reason):
                await call(client)
            await client.aclose()
            await settle(lambda: len(_refusals(logs)), 1)
            assert re.search(server_reason, str(_refusals(logs)[0]["reason"]))
            assert asyncio_tasks(loop) == 0


def _refusals(logs: list[dict[str, object]]) -> list[dict[str, object]]:
    return [entry for entry in logs if entry["event"] == "connection refused"]


async def test_alert_of_a_server_is_told(tmp_path: Path, ca: trustme.CA) -> None:
    """A TLS 1.3 server refuses the client's certificate when the client has finished."""
    context = wire.server_tls(issued(tmp_path, "runner.test", ca))

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock, pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_side=True)

    with trio.fail_after(60), socket.create_server(("127.0.0.1", 0)) as listener:
        async with wire.open_loop() as loop, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve, listener)
            client = wire.GrpcRunnerClient(
                f"127.0.0.1:{listener.getsockname()[1]}",
                wire.ConnectOptions(
                    ssl_context=ssl.create_default_context(cafile=str(tmp_path / "runner.test.ca")),
                    server_name="runner.test",
                ),
                loop=loop,
            )
            with pytest.raises(NotSent, match=r"TLS: .*certificate required"):
                await call(client)
            await client.aclose()


async def test_handshake_that_never_comes_is_given_up(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, object]]
) -> None:
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            async with wire.open_server(
                Service(),
                "127.0.0.1:0",
                wire.ServerOptions(
                    ssl_context=wire.server_tls(issued(tmp_path, "runner.test", ca)),
                    handshake_timeout=0.05,
                ),
                loop=loop,
            ) as server:
                host, _, port = server.address.rpartition(":")
                with socket.create_connection((host, int(port))):
                    await settle(lambda: len(_refusals(logs)), 1)
                assert "no handshake within 0.05 s" in str(_refusals(logs)[0]["reason"])
                await settle(open_sockets, sockets + 1)  # the listener
                assert asyncio_tasks(loop) == 0


@pytest.mark.parametrize("which", ["ca", "key", "cert"])
def test_missing_files(tmp_path: Path, ca: trustme.CA, which: str) -> None:
    pki = issued(tmp_path, "x", ca)
    path = getattr(pki, which)
    Path(path).unlink()
    for make in (wire.server_tls, wire.client_tls):
        with pytest.raises(ConfigError) as info:
            make(pki)
        assert (
            str(info.value)
            == f"Cannot stat {path} for TLS: please specify a valid and readable file"
        )


@pytest.mark.parametrize("which", ["ca", "key", "cert"])
def test_files_with_something_else(tmp_path: Path, ca: trustme.CA, which: str) -> None:
    pki = issued(tmp_path, "x", ca)
    path = getattr(pki, which)
    Path(path).write_text("not PEM")
    with pytest.raises(ConfigError, match=path):
        wire.server_tls(pki)


async def test_a_name_that_no_certificate_can_have(tmp_path: Path, ca: trustme.CA) -> None:
    runner, lb = issued(tmp_path, "runner.test", ca), issued(tmp_path, "lb.test", ca)
    with trio.fail_after(60):
        async with (
            wire.open_loop() as loop,
            wire.open_server(
                Service(),
                "127.0.0.1:0",
                wire.ServerOptions(ssl_context=wire.server_tls(runner)),
                loop=loop,
            ) as server,
        ):
            client = wire.GrpcRunnerClient(
                server.address,
                wire.ConnectOptions(ssl_context=wire.client_tls(lb), server_name=".test"),
                loop=loop,
            )
            with pytest.raises(NotSent, match=r"no name of a host|server_hostname cannot"):
                await call(client)
            await client.aclose()


async def test_a_client_that_keeps_silent_has_one_time_to_go(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its own close and for its part of the server's, to which it says nothing either."""
    monkeypatch.setattr(server_module, "LINGER_SECONDS", 0.1)
    for module, name in ((connection_pool, "CLOSE_TIMEOUT"), (server_module, "SHUTDOWN_TIMEOUT")):
        monkeypatch.setattr(module, name, 90.0)
    runner, lb = issued(tmp_path, "runner.test", ca), issued(tmp_path, "lb.test", ca)
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            context = wire.server_tls(runner)
            async with wire.open_server(
                Service(), "127.0.0.1:0", wire.ServerOptions(ssl_context=context), loop=loop
            ) as server:
                tcp = await trio.open_tcp_stream(*split_address(server.address))
                client = trio.SSLStream(tcp, wire.client_tls(lb), server_hostname="runner.test")
                await client.do_handshake()
                while not server.connections:  # noqa: ASYNC110  (asyncio's side of a socket)
                    await trio.sleep(0.001)
            await tcp.aclose()
            assert asyncio_tasks(loop) == 0
