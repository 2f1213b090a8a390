"""Certificates: who is let in, and new ones without a restart and without a failed call."""

from __future__ import annotations

import datetime
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from hostler import wire
from hostler.abc import PKIData
from hostler.protocol import Data, NotSent

from .certificates import Files, common_name_only, fresh
from .leaks import open_sockets, settle
from .services import TRY, Service, body_of, call, collect

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@attrs.define
class Ends:
    service: Service
    server: wire.GrpcServer
    client: wire.GrpcRunnerClient
    server_tls: wire.TLSFiles
    client_tls: wire.TLSFiles


@asynccontextmanager
async def ends(runner: Files, lb: Files, name: str = "runner.test") -> AsyncIterator[Ends]:
    with trio.fail_after(30):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            server_tls = wire.TLSFiles(runner.pki, wire.server_tls, metrics=fresh())
            client_tls = wire.TLSFiles(lb.pki, wire.client_tls, metrics=fresh())
            service = Service()
            async with wire.open_server(
                service, "127.0.0.1:0", wire.ServerOptions(ssl_context=server_tls), loop=loop
            ) as server:
                client = wire.GrpcRunnerClient(
                    server.address,
                    wire.ConnectOptions(
                        ssl_context=client_tls, server_name=name, connect_timeout=60
                    ),
                    loop=loop,
                )
                try:
                    yield Ends(service, server, client, server_tls, client_tls)
                finally:
                    with trio.CancelScope(shield=True):
                        await client.aclose()
            await settle(open_sockets, sockets)


async def refused(runner: Files, lb: Files, name: str = "runner.test") -> str:
    """The error of a call that can't be made."""
    async with ends(runner, lb, name) as pair:
        with pytest.raises(NotSent) as caught:
            await call(pair.client)
        assert pair.service.started == 0
        return str(caught.value)


async def test_an_expired_certificate_of_the_runner(tmp_path: Path, ca: trustme.CA) -> None:
    old = ca.issue_cert("runner.test", not_before=PAST, not_after=PAST)
    runner = Files(tmp_path / "runner").write(ca, cert=old)
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    text = await refused(runner, lb)
    assert "TLS: certificate verify failed: certificate has expired" in text


async def test_an_expired_certificate_of_the_lb(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, object]]
) -> None:
    old = ca.issue_cert("lb.test", not_before=PAST, not_after=PAST)
    runner = Files(tmp_path / "runner").write(ca, cert=ca.issue_cert("runner.test"))
    lb = Files(tmp_path / "lb").write(ca, cert=old)
    text = await refused(runner, lb)
    assert text.endswith(
        "closed by the peer after the TLS handshake: it may not accept our certificate"
    )
    reasons = [entry["reason"] for entry in logs if entry["event"] == "connection refused"]
    assert reasons == ["TLS: certificate verify failed: certificate has expired"]


@pytest.mark.parametrize("expected", ["runner.test", "other.test"])
async def test_a_common_name_counts_where_there_is_no_other(
    tmp_path: Path, ca: trustme.CA, expected: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    common_name_only(ca, tmp_path / "runner", "runner.test", key)
    runner = Files(tmp_path / "runner")
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    if expected == "runner.test":
        async with ends(runner, lb) as pair:
            assert body_of(await call(pair.client, b"x")) == b"x"
    else:
        assert "Hostname mismatch" in await refused(runner, lb, expected)


async def test_a_common_name_does_not_count_beside_others(tmp_path: Path, ca: trustme.CA) -> None:
    cert = ca.issue_cert("real.test", common_name="runner.test")
    runner = Files(tmp_path / "runner").write(ca, cert=cert)
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    assert "Hostname mismatch" in await refused(runner, lb)


async def test_a_whole_rotation_under_load_fails_no_call(tmp_path: Path, ca: trustme.CA) -> None:
    """From one authority to another, at both ends, in the order in which operators do it."""
    new = trustme.CA()
    runner = Files(tmp_path / "runner").write(ca, cert=ca.issue_cert("runner.test"))
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    done = 0
    async with ends(runner, lb) as pair:
        stop = trio.Event()

        async def load() -> None:
            nonlocal done
            while not stop.is_set():
                assert body_of(await call(pair.client, b"x" * 100)) == b"x" * 100
                done += 1

        async def until_more(count: int) -> None:
            wanted = done + count
            while done < wanted:  # noqa: ASYNC110  (real handshakes, a deadline around)
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(load)
            await until_more(50)
            old_lb, old_runner = ca.issue_cert("lb.test"), ca.issue_cert("runner.test")
            new_lb, new_runner = new.issue_cert("lb.test"), new.issue_cert("runner.test")
            for files, tls, cert, trusted in (
                (runner, pair.server_tls, old_runner, [ca, new]),
                (lb, pair.client_tls, old_lb, [ca, new]),
                (runner, pair.server_tls, new_runner, [ca, new]),
                (lb, pair.client_tls, new_lb, [ca, new]),
                (runner, pair.server_tls, new_runner, [new]),
                (lb, pair.client_tls, new_lb, [new]),
            ):
                files.write(*trusted, cert=cert)
                assert tls.reload()
                await until_more(50)
            stop.set()
        # The last change of the LB has made it connect anew, with the new authority alone.
        assert pair.client.statistics().connections == 1


async def test_what_runs_stays_on_its_connection(tmp_path: Path, ca: trustme.CA) -> None:
    runner = Files(tmp_path / "runner").write(ca, cert=ca.issue_cert("runner.test"))
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    async with ends(runner, lb) as pair:
        async with pair.client.engage(TRY) as engagement:
            lb.write(ca, cert=ca.issue_cert("lb.test"))
            assert pair.client_tls.reload()
            await call(pair.client)
            assert pair.client.statistics().connections == 2
            await engagement.send(Data(b"late", eof=True))
            assert body_of(await collect(engagement)) == b"late"
        assert pair.client.statistics().streams == 0
        await settle(lambda: pair.client.statistics().connections, 1)
        assert len(pair.server.connections) <= 2


async def test_files_that_the_peer_refuses_leave_the_standing_connections_in_use(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, object]]
) -> None:
    runner = Files(tmp_path / "runner").write(ca, cert=ca.issue_cert("runner.test"))
    lb = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    stranger = trustme.CA()
    async with ends(runner, lb) as pair:
        await call(pair.client)
        lb.write(ca, cert=stranger.issue_cert("lb.test"))
        assert pair.client_tls.reload()
        for _ in range(20):
            assert body_of(await call(pair.client, b"x")) == b"x"
        told = [entry for entry in logs if entry["event"] == "no further connection"]
        assert len(told) == 1
        lb.write(ca, cert=ca.issue_cert("lb.test"))
        assert pair.client_tls.reload()
        await call(pair.client)
        await settle(lambda: pair.client.statistics().connections, 1)


def test_files_that_make_no_sense_leave_the_former(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, object]]
) -> None:
    files = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    metrics = fresh()
    tls = wire.TLSFiles(files.pki, wire.client_tls, metrics=metrics)
    before = tls.context
    assert not tls.reload()
    key = Path(files.pki.key).read_bytes()
    other = ca.issue_cert("lb.test")
    Path(files.pki.key).write_bytes(other.private_key_pem.bytes())  # the certificate comes later
    assert not tls.reload()
    assert not tls.reload()
    assert tls.context is before
    told = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in told] == [
        "changed TLS files can't be used, the former stay"
    ]
    Path(files.pki.cert).unlink()
    assert not tls.reload()
    Path(files.pki.cert).write_bytes(other.cert_chain_pems[0].bytes())
    assert tls.reload()
    assert tls.context is not before
    assert key != Path(files.pki.key).read_bytes()
    assert (metrics.loads.value, metrics.failures.value) == (1, 2)


async def test_files_are_looked_at_in_intervals(
    tmp_path: Path, ca: trustme.CA, autojump_clock: MockClock
) -> None:
    files = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    tls = wire.TLSFiles(files.pki, wire.client_tls, metrics=fresh())
    before = tls.context
    files.write(ca, cert=ca.issue_cert("lb.test"))
    with trio.move_on_after(9.9):
        await tls.watch(10)
    assert tls.context is before
    with trio.move_on_after(10.1):
        await tls.watch(10)
    assert tls.context is not before


@pytest.mark.parametrize(
    ("vanished", "probe", "timeout"), [(30, 6, 24_000), (5, 1, 4000), (3, 1, 2000), (0.5, 1, 1000)]
)
def test_options_of_the_kernels_keepalive(vanished: float, probe: int, timeout: int) -> None:
    options = wire.Keepalive(vanished=vanished).socket_options()
    assert options["TCP_KEEPIDLE"] == options["TCP_KEEPINTVL"] == probe
    assert options["TCP_USER_TIMEOUT"] == timeout
    noticed = max(2, math.ceil(timeout / 1000 / probe)) * probe
    assert noticed <= max(2, vanished)


def test_files_that_change_while_they_are_first_read_are_read_again(
    tmp_path: Path, ca: trustme.CA
) -> None:
    files = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    calls = 0

    def client_tls(pki: PKIData) -> ssl.SSLContext:
        nonlocal calls
        calls += 1
        context = wire.client_tls(pki)
        if calls == 1:
            files.write(ca, cert=ca.issue_cert("lb.test"))
        return context

    tls = wire.TLSFiles(files.pki, client_tls, metrics=fresh())
    assert tls.reload()
    assert not tls.reload()
