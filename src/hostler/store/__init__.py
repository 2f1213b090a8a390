"""The datastore on SQL: SQLite, PostgreSQL, MySQL and MariaDB, through SQLAlchemy Core on worker
threads. The only place for SQLAlchemy and Alembic.

* ``engine``: database URLs and connections of SQLite, PostgreSQL and MySQL
* ``migrate``: upgrading a database to this version's tables
* ``migrations``: Alembic's migrations
* ``schema``: tables, and values as rows
* ``store``: the SQL datastore, and opening it
* ``things``: apps, functions and triggers as rows: insert, change, find, page
* ``transactions``: transactions on worker threads with time limits, and what failures mean
"""

from __future__ import annotations

from .store import SqlDatastore, migrate_database, open_datastore

__all__ = ["SqlDatastore", "migrate_database", "open_datastore"]
