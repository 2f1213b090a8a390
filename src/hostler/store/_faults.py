"""What a failure of a database means."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

_REPEATABLE_STATES = ("40001", "40P01")
"""PostgreSQL: serialization failure, deadlock.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_REPEATABLE_NUMBERS = (1213, 1020)
"""MySQL and MariaDB: deadlock, row has changed since it was read.
https://mariadb.com/kb/en/mariadb-error-codes/"""


def is_overtaken(error: SQLAlchemyError) -> bool:
    """Whether another transaction was quicker: the same again may succeed, or finds out, with its
    own checks, what stands against it."""
    if isinstance(error, IntegrityError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return _state(error) in _REPEATABLE_STATES or _number(error) in _REPEATABLE_NUMBERS


def is_busy(error: SQLAlchemyError) -> bool:
    """Whether an SQLite database was locked by others for as long as the driver waits."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def is_lost(error: SQLAlchemyError) -> bool:
    """Whether a connection that had been made was lost, and with it the rest of the pool's."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database is down, unreachable, full, or too slow: not a mistake of ours."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return False  # a mistake in SQL, which Python calls an operational error
    return is_lost(error) or isinstance(error, OperationalError | InterfaceError)


def remedy(error: BaseException) -> str:
    """What to do about an SQLite file that can't be opened, or not be written."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return "; the node's user must be able to write the file, and its folder"
    return ""


def reason(error: BaseException) -> str:
    """The driver's own text, on one line, without SQL."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    return " ".join(text.split()) or type(error).__name__


def _state(error: DBAPIError) -> Any:
    return getattr(error.orig, "sqlstate", None)


def _number(error: DBAPIError) -> Any:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments else None
