"""The connections of one client: streams are counted here, and connections opened and closed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from hostler.protocol import NotSent

from ._connection import WireProtocol
from ._dial import Target, dial
from ._tls_files import current_context

if TYPE_CHECKING:
    from ._shared_client import ClientStream

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT = 1.0
"""Seconds that closing a connection may take before it is aborted."""


_NONE_YET = object()


@attrs.frozen
class PoolStatistics:
    """A snapshot. ``connections`` includes those that are draining."""

    connections: int
    streams: int
    waiting: int


@attrs.define(eq=False)
class Slot:
    """A connection and how many streams on it are ours."""

    protocol: WireProtocol
    in_use: int = 0
    """Streams, and calls on the shared stream."""
    shared: ClientStream | None = None
    """The stream that calls share, once one was opened."""
    may_share: bool = True
    """Not any more if a shared stream ended although the connection stands."""


@attrs.define(eq=False)
class _Attempt:
    """One dialling, which everybody who needs a connection waits for."""

    done: trio.Event = attrs.Factory(trio.Event)
    error: NotSent | None = None


class ConnectionPool:
    """Opens a connection when all have their streams taken, one at a time and up to
    ``max_connections``; closes one that is idle while another one has room.

    There is no backoff: who comes while a dialling is under way shares its outcome, a dialling
    is bounded, and a placer paces its own sweeps. So a runner that is back is found at once.

    When the TLS files have changed, new streams go to new connections, made before those that
    stand are given up.
    """

    def __init__(
        self, target: Target, *, max_connections: int, streams_per_connection: int
    ) -> None:
        self._target = target
        self._max_connections = max_connections
        self._streams_per_connection = streams_per_connection
        self._slots: list[Slot] = []
        self._attempt: _Attempt | None = None
        self._refused: object = _NONE_YET
        """The TLS context with which no connection came to be while older ones still work."""
        self._changed = trio.Event()
        self._waiting = 0
        self.closed = False

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            connections=len(self._slots),
            streams=sum(slot.in_use for slot in self._slots),
            waiting=self._waiting,
        )

    async def acquire(self) -> Slot:
        """The right to open one stream on a connection, to be given back with `release`.

        Trio-flavoured. Waits for a connection or for a free stream. Raises `NotSent`.
        """
        self._waiting += 1
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._acquire()
        finally:
            self._waiting -= 1

    def acquire_now(self) -> Slot | None:
        """As `acquire`, if nobody has to wait; else ``None``."""
        if self.closed or self._waiting or (slot := self._with_room()) is None:
            return None
        slot.in_use += 1
        return slot

    def release(self, slot: Slot) -> None:
        slot.in_use -= 1
        if self._waiting or len(self._slots) > 1 or not slot.protocol.usable:
            self._tidy()

    async def _acquire(self) -> Slot:
        while True:
            if self.closed:
                raise NotSent(f"the client of runner {self._target.address} is closed")
            slot = self._with_room()
            if slot is not None:
                slot.in_use += 1
                return slot
            if self._attempt is not None:
                attempt = self._attempt
                await attempt.done.wait()
                if attempt.error is not None:
                    raise NotSent(str(attempt.error)) from attempt.error
            elif self._dialable() < self._max_connections:
                await self._dial()
            else:
                await self._wait_room()

    async def _wait_room(self) -> None:
        """Until there may be a stream: one is free, or a connection has resets left again."""
        seconds = min(
            (
                slot.protocol.connection.resets.wait_for(slot.in_use + 1)
                for slot in self._slots
                if slot.protocol.usable and slot.in_use < self._limit(slot)
            ),
            default=math.inf,
        )
        with trio.move_on_after(seconds):
            await self._changed.wait()

    def _with_room(self) -> Slot | None:
        # The first one with room: so the others become idle and can be closed.
        found = None
        for slot in self._slots:
            if slot.protocol.usable and slot.in_use < self._limit(slot):
                if slot.protocol.connection.resets.wait_for(slot.in_use + 1):
                    continue  # so that all that is open may be reset
                if self._is_current(slot):
                    return slot
                found = found or slot
        if self._renews():
            return None
        return found

    def _is_current(self, slot: Slot) -> bool:
        """Whether the connection stands on the TLS files as they are now."""
        return slot.protocol.context is current_context(self._target.tls)

    def _renews(self) -> bool:
        """Whether connections that are not current should give way to a new one."""
        return current_context(self._target.tls) is not self._refused

    def _current(self) -> int:
        return sum(slot.protocol.usable and self._is_current(slot) for slot in self._slots)

    def _limit(self, slot: Slot) -> int:
        return min(self._streams_per_connection, slot.protocol.connection.limit)

    def _dialable(self) -> int:
        """The connections that count against the limit."""
        return self._current() if self._renews() else self._usable()

    def _usable(self) -> int:
        return sum(slot.protocol.usable for slot in self._slots)

    async def _dial(self) -> None:
        attempt = self._attempt = _Attempt()
        try:
            protocol = await dial(self._target)
        except NotSent as error:
            if not self._usable():
                attempt.error = error
                raise
            log.warning("no further connection", runner=self._target.address, reason=str(error))
            if self._renews() and not self._current():
                # The older ones do it until the files have changed again.
                self._refused = current_context(self._target.tls)
            else:
                # There are others, and streams on them will become free.
                await self._wait_room()
            return
        finally:
            # If this task was cancelled, the next one in line dials.
            self._attempt = None
            attempt.done.set()
        if self.closed:
            protocol.abort("client closed")
            return
        self._refused = _NONE_YET
        self._slots.append(Slot(protocol))
        protocol.on_change = self._tidy  # type: ignore[method-assign]
        self._tidy()

    def _tidy(self) -> None:
        """Drop lost connections, close what is not needed, wake up who waits for a stream."""
        self._slots = [slot for slot in self._slots if not slot.protocol.lost.is_set()]
        for slot in self._slots:
            if not slot.in_use and (not slot.protocol.usable or self._surplus(slot)):
                slot.protocol.close("no longer needed")
        self._changed.set()
        self._changed = trio.Event()

    def _surplus(self, slot: Slot) -> bool:
        """Whether another connection has so much room that this idle one only costs."""
        return any(
            other.in_use < max(1, self._limit(other) // 2)
            for other in self._slots
            if other is not slot
            and other.protocol.usable
            and (self._is_current(other) or not self._is_current(slot))
        )

    async def aclose(self) -> None:
        """Close all at once, aborting what does not close within ``CLOSE_TIMEOUT``.

        Trio-flavoured; shielded, as it is bounded. Idempotent.
        """
        self.closed = True
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.protocol.close("client closed")
        self._tidy()
        await close_all([slot.protocol for slot in slots])


async def close_all(protocols: list[WireProtocol], until: float = math.inf) -> None:
    """Wait until connections that are being closed are lost; abort the stubborn ones.

    Trio-flavoured. Shielded: bounded by ``CLOSE_TIMEOUT`` and ``until``, and an aborted connection
    is lost at the loop's next turn.
    """
    with trio.CancelScope(shield=True):
        with trio.move_on_at(min(until, trio.current_time() + CLOSE_TIMEOUT)):
            for protocol in protocols:
                await protocol.lost.wait()
        for protocol in protocols:
            if not protocol.lost.is_set():
                protocol.abort("did not close in time")
        for protocol in protocols:
            await protocol.lost.wait()
