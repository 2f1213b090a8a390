"""The datastore on SQL: SQLite, PostgreSQL, MySQL and MariaDB, through SQLAlchemy Core on worker
threads. The only place for SQLAlchemy and Alembic."""

from __future__ import annotations

from ._open import migrate_database, open_datastore
from ._store import SqlDatastore

__all__ = ["SqlDatastore", "migrate_database", "open_datastore"]
