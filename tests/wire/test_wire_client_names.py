"""A runner that only talks to load balancers of certain names."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from hostler import wire
from hostler.protocol import NotSent

from .certificates import Files, common_name_only, fresh
from .leaks import asyncio_tasks, open_sockets, settle
from .services import Service, body_of, call

REFUSED = "closed by the peer after the TLS handshake: it may not accept our certificate"


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def guarded(
    folder: Path, ca: trustme.CA, names: Collection[str], client_context: wire.TLS
) -> AsyncIterator[tuple[wire.GrpcRunnerClient, Service]]:
    """A client and the service of a runner that allows ``names``; nothing stays of either."""
    runner = Files(folder / "runner").write(ca, cert=ca.issue_cert("runner.test"))
    service = Service()
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            async with wire.open_server(
                service,
                "127.0.0.1:0",
                wire.ServerOptions(
                    ssl_context=wire.TLSFiles(runner.pki, wire.server_tls, metrics=fresh()),
                    client_names=names,
                ),
                loop=loop,
            ) as server:
                client = wire.GrpcRunnerClient(
                    server.address,
                    wire.ConnectOptions(
                        ssl_context=client_context, server_name="runner.test", connect_timeout=60
                    ),
                    loop=loop,
                )
                yield client, service
                await client.aclose()
                await settle(lambda: len(server.connections), 0)
                await settle(open_sockets, sockets + 1)  # the listener
            await settle(open_sockets, sockets)
            assert asyncio_tasks(loop) == 0


def lb_context(
    folder: Path, ca: trustme.CA, *names: str, common_name: str | None = None
) -> ssl.SSLContext:
    cert = ca.issue_cert(*names, common_name=common_name)
    return wire.client_tls(Files(folder / "lb").write(ca, cert=cert).pki)


def reasons(logs: list[dict[str, Any]]) -> list[str]:
    return [entry["reason"] for entry in logs if entry["event"] == "connection refused"]


@pytest.mark.parametrize("allowed", ["LB2.test", "10.0.0.7"])
async def test_a_client_with_one_of_the_names_comes_in(
    tmp_path: Path, ca: trustme.CA, allowed: str
) -> None:
    context = lb_context(tmp_path, ca, "lb.test", "lb2.test", "10.0.0.7")
    async with guarded(tmp_path, ca, ["other.test", allowed], context) as (client, _):
        assert body_of(await call(client, b"x" * 100_000)) == b"x" * 100_000


@pytest.mark.parametrize("allowed", ["other.test", "b.test", "*.test", "common.test"])
async def test_a_client_with_another_name_is_refused_before_its_call(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, Any]], allowed: str
) -> None:
    """Not by a part of it, nor by a pattern, nor by a common name beside other names."""
    context = lb_context(tmp_path, ca, "lb.test", common_name="common.test")
    async with guarded(tmp_path, ca, [allowed], context) as (client, service):
        with pytest.raises(NotSent) as caught:
            await call(client)
        assert str(caught.value).endswith(REFUSED)
        await settle(lambda: len(reasons(logs)), 1)
        assert service.started == 0
    assert reasons(logs) == [
        "the client's certificate is of 'lb.test', which is not among the allowed names"
    ]


@pytest.mark.parametrize("name", ["lb.test", "x.test"])
async def test_a_common_name_counts_in_a_certificate_without_others(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, Any]], name: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    context = wire.client_tls(common_name_only(ca, tmp_path / "lb", name, key))
    async with guarded(tmp_path, ca, ["lb.test"], context) as (client, _):
        if name == "lb.test":
            assert body_of(await call(client, b"x")) == b"x"
            return
        with pytest.raises(NotSent, match="may not accept our certificate"):
            await call(client)
        await settle(lambda: len(reasons(logs)), 1)
    assert "is of 'x.test'" in reasons(logs)[0]


async def test_a_client_without_a_certificate_is_refused_by_tls(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, Any]]
) -> None:
    lb_context(tmp_path, ca, "lb.test")
    context = ssl.create_default_context(cafile=str(tmp_path / "lb" / "ca"))
    async with guarded(tmp_path, ca, ["lb.test"], context) as (client, service):
        with pytest.raises(NotSent, match=r"closed by the peer after the TLS|certificate required"):
            await call(client)
        await settle(lambda: len(reasons(logs)), 1)
        assert service.started == 0
    assert "peer did not return a certificate" in reasons(logs)[0]


async def test_a_rotation_within_the_names_goes_on_and_out_of_them_does_not(
    tmp_path: Path, ca: trustme.CA, logs: list[dict[str, Any]]
) -> None:
    files = Files(tmp_path / "lb").write(ca, cert=ca.issue_cert("lb.test"))
    context = wire.TLSFiles(files.pki, wire.client_tls, metrics=fresh())
    async with guarded(tmp_path, ca, ["lb.test", "lb2.test"], context) as (client, _):
        for name in ("lb.test", "lb2.test", "stranger.test"):
            files.write(ca, cert=ca.issue_cert(name))
            assert context.reload()
            for _ in range(5):
                assert body_of(await call(client, b"x")) == b"x"
        # The third was refused; the connections of the second go on.
        assert len(reasons(logs)) == 1
        assert "stranger.test" in reasons(logs)[0]


def test_a_certificate_without_any_name() -> None:
    for certificate in (None, {}, {"subject": ((("organizationName", "o"),),)}):
        assert wire.refusal_of(certificate, ["lb.test"]) == "the client's certificate has no name"


async def test_names_need_tls() -> None:
    async with wire.open_loop() as loop:
        with pytest.raises(ValueError, match="without TLS"):
            async with wire.open_server(
                Service(), "127.0.0.1:0", wire.ServerOptions(client_names=["lb.test"]), loop=loop
            ):
                raise AssertionError
