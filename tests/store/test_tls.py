"""TLS to real servers, as the URL asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from hostler.config import StoreConfig
from hostler.datastore import DatastoreError
from hostler.store import open_datastore

from .servers import Server
from .things import an_app

pytestmark = pytest.mark.parametrize("kind", ["postgresql", "mysql"], indirect=True)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An authority that has nothing to do with the server."""
    path = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def tls_url(server: Server, ca: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that wants the server's certificate to be of ``ca``."""
    if server.name == "postgresql":
        return server.tcp_url("shared", f"?sslmode=verify-full&sslrootcert={ca}")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    return server.tcp_url("shared", "?tls=true")


async def works(url: str, server: Server, *, encrypted: bool) -> None:
    before = sessions_with_tls(server)
    async with open_datastore(StoreConfig(db_url=url, ds_db_ping_max_retries=1)) as store:
        app = await store.apps.create(an_app())
        assert await store.apps.get(app.id) == app
        await store.apps.delete(app.id)
        assert (sessions_with_tls(server) > before) is encrypted


def sessions_with_tls(server: Server) -> int:
    """How many there are, or have been."""
    if server.name == "postgresql":
        query = "SELECT '', count(*) FROM pg_stat_ssl WHERE ssl"
    else:
        query = "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'"
    return int(server.execute(query)[0][1])


async def test_a_certificate_of_the_authority_is_taken(
    url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await works(tls_url(server, server.ca, monkeypatch), server, encrypted=True)


async def test_one_of_another_authority_is_refused_with_a_reason(
    url: str, server: Server, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = tls_url(server, stranger, monkeypatch)
    with pytest.raises(DatastoreError, match=r"(?i)certificate verify failed"):
        await works(secure, server, encrypted=True)


async def test_encryption_alone_needs_no_authority(url: str, server: Server) -> None:
    options = {"postgresql": "?sslmode=require", "mysql": "?tls=skip-verify"}[server.name]
    await works(server.tcp_url("shared", options), server, encrypted=True)


async def test_a_server_without_tls_is_refused(
    url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = tls_url(server, server.ca, monkeypatch)
    plain = {"postgresql": ("-c", "ssl=off"), "mysql": ("--skip-ssl",)}[server.name]
    server.end()
    server.start(*plain)
    try:
        with pytest.raises(DatastoreError, match=r"server does(n't| not) support"):
            await works(secure, server, encrypted=True)
        await works(url, server, encrypted=False)
    finally:
        server.end()
        server.start()
