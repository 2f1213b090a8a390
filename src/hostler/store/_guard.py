"""Ending a transaction from outside of the thread that waits for its database."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self


class Aborted(Exception):
    """The transaction was aborted before it had a connection."""


class _OfThread(threading.local):
    guard: Guard | None = None


_of_thread = _OfThread()


class Guard:
    """Knows the connection of one transaction while it has one. Entered by the thread that runs
    the transaction; `abort` may be called from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self.aborted = False
        self.committing = False
        """Whether the end of the transaction was reached: then it may have been committed even if
        it failed."""

    def __enter__(self) -> Self:
        _of_thread.guard = self
        return self

    def __exit__(self, *_: object) -> None:
        _of_thread.guard = None

    @contextmanager
    def watching(self, connection: Any) -> Iterator[None]:
        """The block uses this connection of the driver's. Raises `Aborted` after `abort`."""
        self._attach(connection)
        try:
            yield
        finally:
            with self._lock:  # it goes back to the pool, and may be another's
                self._connection = None

    def _attach(self, connection: Any) -> None:
        with self._lock:
            if self.aborted:
                raise Aborted
            self._connection = connection

    def abort(self) -> None:
        """Fail what the connection waits for, now. Never waits itself.

        An SQLite connection can be used again; others are broken, as if the network was.
        """
        with self._lock:
            self.aborted = True
            if isinstance(self._connection, sqlite3.Connection):
                self._connection.interrupt()
            elif self._connection is not None:
                _cut(self._connection)


def watch_new_connection(connection: Any) -> None:
    """To be called when a thread has made a connection, before it waits for it."""
    if _of_thread.guard is not None:
        _of_thread.guard._attach(connection)


def _cut(connection: Any) -> None:
    """Shut the socket down under a driver that reads from it. The server sees the end of the
    session, and rolls back."""
    # psycopg tells its descriptor; PyMySQL has no public name for its socket.
    source = getattr(connection, "_sock", None) or connection
    with contextlib.suppress(Exception):  # a connection that was closed has no descriptor
        duplicate = socket.socket(fileno=os.dup(source.fileno()))
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()
