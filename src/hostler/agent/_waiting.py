"""What meets in a slot queue: calls that wait, launches, and containers as slots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs
import trio

from hostler.call import PendingCall, Timings

if TYPE_CHECKING:
    from ._slots import SlotQueue


class Slot(Protocol):
    """A container that can run one call at a time."""

    def take(self, now: float) -> None:
        """A call has it from ``now`` on."""

    def give_back(self, *, reusable: bool) -> None:
        """The call is done with it."""

    def reconsider(self) -> None:
        """Whether it has to be kept may have changed while it idles."""


S = TypeVar("S", bound=Slot)


def is_untold(call: PendingCall) -> bool:
    """Whether nobody else cares for how long the client of ``call`` waits: no load balancer has
    sent it, and it has not said so."""
    return not call.client and call.deadline == math.inf


@attrs.define(eq=False)
class Waiter(Generic[S]):
    """A call that waits for a slot. When ``done``, it has a ``slot`` or an ``error``."""

    call: PendingCall
    joined_at: float = 0.0
    done: trio.Event = attrs.Factory(trio.Event)
    slot: S | None = None
    error: Exception | None = None
    timings: Timings | None = None
    """Of the launch, if the slot is fresh from one."""
    launch: Launch[S] | None = None
    setback: Exception | None = None
    """Why its launch failed, while it still hopes for another container."""
    patience: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the wait. Its deadline is set when there is no room for a launch, and for a call that
    waits without one, see `SlotQueue.served`."""

    @property
    def is_untold(self) -> bool:
        return is_untold(self.call)

    served_ns: int = 0
    """When it was given its slot, as of `time.perf_counter_ns`: what is measured with it is the
    work of the scheduler, which has no virtual time."""


@attrs.define(eq=False)
class Launch(Generic[S]):
    """A container on its way. ``waiter`` is the call it is meant for; ``None`` = a spare one."""

    queue: SlotQueue[S]
    waiter: Waiter[S] | None
    timings: Timings = attrs.Factory(Timings)
    begun: bool = False
    """It has its resources. Before that it is given up when nobody needs it."""
    begun_at: float = 0.0
    """When it got them."""
    firm: bool = False
    """It is not given up when its turn comes, whoever has been served meanwhile."""
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the time before ``begun``."""
