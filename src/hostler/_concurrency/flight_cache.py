"""A cache that asks once for whoever asks, and outlives failures of whom it asks."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import attrs
import structlog
import trio

from .._stats import LRUDict
from ..config import ApiConfig
from ..errors import APIError
from ..rules.errors import DatastoreUnavailable

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PATIENCE = 0.5
"""Seconds that a call waits for a new answer if there is an old one."""
PAUSE = 1.0
"""Seconds for which an old answer is used without asking, after asking has failed."""
MAX_MISSING = 1_000
"""Things that are not there and remembered as such."""
REFUSED = (401, 403)
NOT_THERE = 404


@attrs.define
class _Entry(Generic[V]):
    value: V
    fresh_until: float
    usable_until: float


@attrs.define(eq=False)
class _Flight(Generic[V]):
    """One question under way."""

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    done: trio.Event = attrs.Factory(trio.Event)
    waiters: int = 0
    value: V | None = None
    error: Exception | None = None


class SingleFlightCache(Generic[K, V]):
    """Answers of ``load`` by key. Its flights live in ``nursery``.

    An `APIError` 404 of ``load`` means that there is nothing, now: an old answer is dropped. Any
    other error means that it could not be asked.
    """

    def __init__(
        self, load: Callable[[K], Awaitable[V]], nursery: trio.Nursery, config: ApiConfig
    ) -> None:
        self._load = load
        self._nursery = nursery
        self._config = config
        self._entries = LRUDict[K, _Entry[V]](config.lookup_size)
        self._missing = LRUDict[K, tuple[APIError, float]](MAX_MISSING)
        self._flights: dict[K, _Flight[V]] = {}
        self._failing = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    async def get(self, key: K) -> V:
        """The answer for ``key``. Raises what ``load`` raises, for want of an older answer."""
        now = trio.current_time()
        entry = self._entries.get(key)
        if entry is not None and now < entry.fresh_until:
            self._entries.move_to_end(key)
            await trio.lowlevel.checkpoint_if_cancelled()
            return entry.value
        error, until = self._missing.get(key, (None, 0.0))
        if error is not None and now < until:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise copy.copy(error)
        if entry is None or now >= entry.usable_until:
            return await self._join(key)
        return await self._renewed(key, entry)

    def clear(self) -> None:
        """Forget all answers, also those that are on their way: they may be older than this."""
        self._entries.clear()
        self._missing.clear()
        self._flights.clear()

    async def _renewed(self, key: K, entry: _Entry[V]) -> V:
        try:
            with trio.move_on_after(PATIENCE):
                return await self._join(key)
        except Exception as error:
            if _says_missing(error):
                raise
        else:
            self._put_off(entry)  # too slow: those who come next need not wait for the same
        return entry.value

    async def _join(self, key: K) -> V:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight)
        flight.waiters += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiters -= 1
            if not flight.waiters and key not in self._entries:
                flight.scope.cancel()  # nobody wants to know any more
                self._land(key, flight)
        if flight.error is not None:
            raise copy.copy(flight.error) from flight.error
        return flight.value  # type: ignore[return-value]

    async def _fly(self, key: K, flight: _Flight[V]) -> None:
        flight.error = DatastoreUnavailable()  # what those who wait get if this is cancelled
        try:
            with flight.scope:
                value = await self._load(key)
                flight.value, flight.error = value, None
                if self._flights.get(key) is flight:
                    self._keep(key, value)
        except Exception as error:  # noqa: BLE001  (it is raised where the answer is waited for)
            # Who is refused is the node, which its log tells; a client can do nothing about it.
            flight.error = DatastoreUnavailable() if _says_refused(error) else error
            if self._flights.get(key) is flight:
                self._failed(key, error)
        finally:
            self._land(key, flight)
            flight.done.set()

    def _land(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.info("look-ups succeed again")

    def _keep(self, key: K, value: V) -> None:
        self._recovered()
        now = trio.current_time()
        fresh = now + self._config.lookup_ttl
        self._missing.pop(key, None)
        stale = fresh + self._config.lookup_max_stale
        self._entries[key] = _Entry(value, fresh_until=fresh, usable_until=stale)

    def _failed(self, key: K, error: Exception) -> None:
        if isinstance(error, APIError) and _says_missing(error):
            self._recovered()
            self._entries.pop(key, None)
            until = trio.current_time() + self._config.lookup_missing_ttl
            self._missing[key] = error, until
            return
        entry = self._entries.get(key)
        if entry is not None:
            self._put_off(entry)
            if not isinstance(error, APIError):  # else nobody would learn of it
                log.error("internal error in a look-up", key=str(key), exc_info=error)
        if not self._failing:
            self._failing = True
            reason = getattr(error, "reason", "") or str(error)
            log.warning("look-ups fail", key=str(key), reason=reason)

    def _put_off(self, entry: _Entry[V]) -> None:
        entry.fresh_until = min(trio.current_time() + PAUSE, entry.usable_until)


def _says_missing(error: Exception) -> bool:
    return isinstance(error, APIError) and error.code == NOT_THERE


def _says_refused(error: Exception) -> bool:
    return isinstance(error, APIError) and error.code in REFUSED
