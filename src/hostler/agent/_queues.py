"""The slot queues of an agent, by slot key."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Generic

import trio

from hostler.call import PendingCall

from ._slots import SlotQueue
from ._waiting import Launch, S, Waiter


def _always(call: PendingCall) -> bool:
    return True


def _never(*_: object) -> bool:
    return False


class SlotQueues(Generic[S]):
    """All slot queues of an agent. A queue exists as long as something is in it."""

    def __init__(
        self,
        launch: Callable[[Launch[S], PendingCall], None],
        *,
        has_room: Callable[[PendingCall], bool] = _always,
        may_be_next: Callable[[SlotQueue[S], Waiter[S]], bool] = _never,
        contended: Callable[[], bool] = _never,
        clock: Callable[[], float] = trio.current_time,
        patient: Callable[[PendingCall], bool] = _always,
        max_wait: float = math.inf,
    ) -> None:
        """Parameters as for `SlotQueue`."""
        self._make = partial(
            SlotQueue[S],
            launch=launch,
            on_empty=self._forget,
            has_room=has_room,
            patient=patient,
            may_be_next=may_be_next,
            contended=contended,
            clock=clock,
            max_wait=max_wait,
        )
        self._queues: dict[Hashable, SlotQueue[S]] = {}
        self._keep: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[SlotQueue[S]]:
        return iter(tuple(self._queues.values()))

    def get(self, key: Hashable) -> SlotQueue[S]:
        """The queue of ``key``. Take from it or join it before the next checkpoint: an empty one
        may be forgotten then."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = self._make(key)
            if self._keep:
                queue.keep(self._keep.get(key, 0))
        return queue

    def find(self, key: Hashable) -> SlotQueue[S] | None:
        """The queue of ``key`` if there is anything in it."""
        return self._queues.get(key)

    def keep(self, key: Hashable, count: int) -> None:
        """Of the containers of ``key``, now and later, ``count`` are to stay; 0 = as usual."""
        if count:
            self._keep[key] = count
        else:
            self._keep.pop(key, None)
        if (queue := self._queues.get(key)) is not None:
            queue.keep(count)

    def _forget(self, queue: SlotQueue[S]) -> None:
        if self._queues.get(queue.key) is queue:
            del self._queues[queue.key]
