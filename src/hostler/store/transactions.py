"""Transactions on worker threads with time limits, and what failures mean."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import attrs
import structlog
import trio
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..rules.errors import DatastoreUnavailable
from .engine import WRITES, Aborted, Guard

ATTEMPTS = 10
"""Attempts of a transaction that others overtake."""

MAX_PAUSE = 0.05
"""Seconds between attempts, at most."""

CANCEL_GRACE = 1.0
"""Seconds that a cancelled transaction gets to end by itself before its connection is cut."""

CLOSE_GRACE = 5.0
"""Seconds beyond an operation's time limit that closing waits for the last ones."""

Result = TypeVar("Result")

Work = Callable[[Connection], Result]
"""A whole transaction, run on a worker thread; it may be run again."""

_log = structlog.get_logger(__name__)


@attrs.frozen
class _Failed:
    error: Exception


class Transactions:
    """Runs transactions on one engine, as many at a time as it has connections."""

    def __init__(self, engine: Engine, *, concurrent: int, time_limit: float, name: str) -> None:
        self.engine = engine
        self._slots = trio.CapacityLimiter(concurrent)
        self._threads = trio.CapacityLimiter(concurrent)  # never waited for
        self._time_limit = time_limit
        self._name = name
        self._closed = False
        self._down = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "down" if self._down else "up"
        used = self._slots.borrowed_tokens
        return f"<Transactions {self._name} {state} {used}/{int(self._slots.total_tokens)} in use>"

    async def read(self, work: Work[Result]) -> Result:
        """Run ``work`` in a transaction that changes nothing. Raises as `Datastore` says."""
        return await self._run(work, writes=False)

    async def write(self, work: Work[Result]) -> Result:
        """Run ``work`` in a transaction and commit it, unless it raises. If another transaction
        was quicker, it is run again: its own checks then see what that one did."""
        return await self._run(work, writes=True)

    async def _run(self, work: Work[Result], *, writes: bool) -> Result:
        deadline = trio.current_time() + self._time_limit
        async with self._slot(deadline):
            guard = Guard()
            outcome = await self._on_thread(work, guard, deadline, writes=writes)
        if isinstance(outcome, _Failed):
            raise self._translate(outcome.error, guard) from outcome.error
        self._note_up()
        return outcome

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        self._check_open()
        owner = object()
        with trio.move_on_at(deadline) as waiting:
            await self._slots.acquire_on_behalf_of(owner)
        if waiting.cancelled_caught:
            self._note_down("all connections are in use")
            raise DatastoreUnavailable
        try:
            self._check_open()
            yield
        finally:
            self._slots.release_on_behalf_of(owner)

    def _check_open(self) -> None:
        if self._closed:
            raise DatastoreUnavailable

    async def _on_thread(
        self, work: Work[Result], guard: Guard, deadline: float, *, writes: bool
    ) -> Result | _Failed:
        """Not abandoned when cancelled: a thread that nobody waits for would hold a connection,
        and perhaps locks. It ends soon all the same, for the guard cuts its connection."""
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_abort_in_time, guard, ended, deadline)
            try:
                return await trio.to_thread.run_sync(
                    self._try, work, guard, writes, limiter=self._threads
                )
            finally:
                ended.set()

    def _try(self, work: Work[Result], guard: Guard, writes: bool) -> Result | _Failed:
        """A failure as a value, so that no nursery makes a group of it."""
        try:
            return self._do(work, guard, writes)
        except Exception as error:  # noqa: BLE001  (raised again by `_run`)
            return _Failed(error)

    def _do(self, work: Work[Result], guard: Guard, writes: bool) -> Result:
        attempts = 0
        with guard:
            while True:
                attempts += 1
                try:
                    return self._attempt(work, guard, writes)
                except SQLAlchemyError as error:
                    if guard.aborted or not _may_repeat(error, guard, attempts):
                        raise
                time.sleep(random.uniform(0, MAX_PAUSE))  # noqa: S311  (spreads, hides nothing)

    def _attempt(self, work: Work[Result], guard: Guard, writes: bool) -> Result:
        guard.committing = False
        with self.engine.connect() as connection:
            connection.execution_options(**{WRITES: writes})
            with guard.watching(connection.connection.dbapi_connection), connection.begin():
                result = work(connection)
                guard.committing = True
            return result

    def _translate(self, error: Exception, guard: Guard) -> Exception:
        if guard.aborted or isinstance(error, Aborted):
            self._note_down(f"no answer in {self._time_limit:g} s")
            return DatastoreUnavailable()
        if isinstance(error, SQLAlchemyError) and (is_outage(error) or is_overtaken(error)):
            self._note_down(reason(error))
            return DatastoreUnavailable()
        return error

    def _note_down(self, why: str) -> None:
        if not self._down:
            self._down = True
            _log.warning("database unavailable", database=self._name, reason=why)

    def _note_up(self) -> None:
        if self._down:
            self._down = False
            _log.info("database available again", database=self._name)

    async def aclose(self) -> None:
        """Refuse new transactions, wait for the running ones, and close all connections.

        Shielded: those end by their time limit, so this takes a few seconds more at worst.
        """
        self._closed = True
        limit = self._time_limit + CLOSE_GRACE
        with trio.CancelScope(shield=True):
            with trio.move_on_after(limit):
                for _ in range(int(self._slots.total_tokens)):
                    await self._slots.acquire_on_behalf_of(object())
            with trio.move_on_after(limit):
                await trio.to_thread.run_sync(self.engine.dispose, abandon_on_cancel=True)


def _may_repeat(error: SQLAlchemyError, guard: Guard, attempts: int) -> bool:
    """Another transaction was quicker, or the connection was lost before the commit (a pooled
    connection to a server that was restarted). Waiting for SQLite's lock is no attempt: the guard
    ends it."""
    if is_busy(error):
        return True
    lost = is_lost(error) and not guard.committing
    return attempts < ATTEMPTS and (is_overtaken(error) or lost)


async def _abort_in_time(guard: Guard, ended: trio.Event, deadline: float) -> None:
    """Abort at the deadline, or soon after this task is cancelled."""
    try:
        with trio.move_on_at(deadline):
            await ended.wait()
    finally:
        if not ended.is_set():
            grace = min(deadline, trio.current_time() + CANCEL_GRACE)
            with trio.CancelScope(shield=True, deadline=grace):
                await ended.wait()
        if not ended.is_set():
            guard.abort()


_REPEATABLE_STATES = ("40001", "40P01")
"""PostgreSQL: serialization failure, deadlock.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_REPEATABLE_NUMBERS = (1213, 1020)
"""MySQL and MariaDB: deadlock, row has changed since it was read.
https://mariadb.com/kb/en/mariadb-error-codes/"""


def is_overtaken(error: SQLAlchemyError) -> bool:
    """Whether another transaction was quicker. When this one runs again, it succeeds, or its own
    checks find what is in the way."""
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
