"""Databases for the tests of the store: the contract is tested on every kind of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hostler.config import StoreConfig
from hostler.store import SqlDatastore, open_datastore

from .servers import MariaDB, Postgres, Server, running

KINDS = ("sqlite", "postgresql", "mysql")
_numbers = itertools.count()


def _server(kind: type[Server], program: str) -> Iterator[Server]:
    found = shutil.which(program, path="/usr/sbin:/usr/bin") or list(
        Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
    )
    if not found:
        pytest.skip(f"{program} is not installed; scripts/test does it")
    with running(kind) as server:
        server.execute("CREATE DATABASE shared")
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    yield from _server(Postgres, "postgres")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    yield from _server(MariaDB, "mariadbd")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Server | None:
    """``None`` for SQLite, which has none."""
    if kind == "sqlite":
        return None
    found = request.getfixturevalue({"postgresql": "postgres", "mysql": "mariadb"}[kind])
    assert isinstance(found, Server)
    return found


@pytest.fixture
def url(server: Server | None, tmp_path: Path) -> str:
    """A database without rows. Its tables may be there."""
    if server is None:
        return f"sqlite3://{tmp_path}/data/fn.db"
    schema = "public" if server.name == "postgresql" else "shared"
    query = f"SELECT 1 FROM information_schema.tables WHERE table_schema = '{schema}'"
    if server.execute(query, "shared"):
        server.execute("DELETE FROM hostler_apps", "shared")
    return server.url("shared")


@pytest.fixture
def new_url(server: Server | None, tmp_path: Path) -> str:
    """A database without tables."""
    if server is None:
        return f"sqlite3://{tmp_path}/new.db"
    name = f"new{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlDatastore]:
    async with open_datastore(StoreConfig(db_url=url, db_timeout=60)) as datastore:
        yield datastore
