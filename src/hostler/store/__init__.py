"""The datastore on SQL: SQLite, PostgreSQL, MySQL and MariaDB, through SQLAlchemy Core on worker
threads. The only place for SQLAlchemy and Alembic.

* ``engine``: database URLs and connections of SQLite, PostgreSQL and MySQL
* ``fn_tables``: the tables of a database that Fn made, and taking them over
* ``migrate``: upgrading a database to this version's tables
* ``migrations``: Alembic's migrations
* ``schema``: tables, and values as rows
* ``store``: the SQL datastore, and opening it
* ``things``: apps, functions and triggers as rows: insert, change, find, page
* ``transactions``: transactions on worker threads with time limits, and what failures mean
"""

from __future__ import annotations

from .fn_tables import Side
from .migrate import Migration
from .store import SqlDatastore, database_name, migrate_database, open_datastore

__all__ = [
    "Migration",
    "Side",
    "SqlDatastore",
    "database_name",
    "migrate_database",
    "open_datastore",
]
