"""The API over a real database: SQLite in a file of the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostler.api import api_app
from hostler.config import StoreConfig
from hostler.datastore import Datastore
from hostler.store import open_datastore

from ._client import Client


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Datastore]:
    async with open_datastore(StoreConfig(db_url=f"sqlite3://{tmp_path}/fn.db")) as opened:
        yield opened


@pytest.fixture
async def api(store: Datastore) -> Client:
    return Client(api_app(store))
