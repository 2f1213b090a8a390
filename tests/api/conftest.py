"""The API over a real database: SQLite in a file of the test's."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from hostler.api import api_app
from hostler.config import StoreConfig
from hostler.datastore import Datastore
from hostler.store import migrate_database, open_datastore

from ._client import Client


def config_of(path: Path) -> StoreConfig:
    return StoreConfig(db_url=f"sqlite3://{path}", db_timeout=60)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its tables, which take a while to make."""
    path = tmp_path_factory.mktemp("api") / "empty.db"
    trio.run(migrate_database, config_of(path))
    return path


@pytest.fixture
async def store(empty_database: Path, tmp_path: Path) -> AsyncIterator[Datastore]:
    path = Path(shutil.copy(empty_database, tmp_path / "fn.db"))
    async with open_datastore(config_of(path), migrate=False) as opened:
        yield opened


@pytest.fixture
async def api(store: Datastore) -> Client:
    return Client(api_app(store))
