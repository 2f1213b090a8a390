"""Fast ways beside the seams: a step of a call without a wait, if there is nothing to wait for.

`hostler.abc` and `hostler.protocol` describe the whole system. These classes are private and add
nothing to what the system does. hostler's own pools, runners, clients and writers have them beside
the plain methods of their seam; an object of an extender has none and just works by its plain
methods. Whoever is given an object asks `fast_way` once, and takes the plain way if the answer is
``None``, or if the fast method declines.

Each class says what it saves. "Calls" are calls of Python functions per hot call on the load
balancer or the runner (`scripts/shape --list python-calls`, 1 client).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .abc import Outcome, Runner, RunnerAgent, RunnerPool
from .calls import PendingCall, RunnerCall
from .protocol import (
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    Data,
    Finished,
    Headers,
    LoadHint,
    RunnerClient,
    RunnerFrame,
    RunnerService,
    ServerEngagement,
    TryCall,
)

enabled = True
"""Tests clear it (``scripts/test plain``) to run everything the plain way: without these classes,
without shared streams (`hostler.wire.mux`), and with asyncio's transport
(`hostler.wire.transport`)."""

Way = TypeVar("Way")


def fast_way(thing: object, way: type[Way]) -> Way | None:
    """``thing``, if it has the fast ``way``."""
    return thing if enabled and isinstance(thing, way) else None


# --- the load balancer's side --------------------------------------------------------------


class FastPool(RunnerPool):
    """A pool that has its list of runners at hand. Without it, each sweep waits for
    `RunnerPool.runners` in a cancel scope with the placer's deadline."""

    @abstractmethod
    def runners_now(self, call: RunnerCall) -> Sequence[Runner] | None:
        """The list that `RunnerPool.runners` would return (or what it would raise), if there is
        nothing to wait for; else ``None``."""


Begun = Callable[[], Awaitable[Outcome]]
"""Sees an attempt that has begun to its end."""


class FastRunner:
    """A `Runner` that can commit a call at once. Without it, each attempt runs in a cancel scope
    with the runner's timeout, and in another one by which the runner can end it.

    (Not an ABC: each attempt asks for it, and ``isinstance`` with an ABC is a call of Python.)
    """

    @abstractmethod
    def begin_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Begun | None:
        """Like `Runner.try_exec`, if the call can be handed over without any wait. The call is
        committed before this returns; call and await the result at once. ``None`` if there is
        something to wait for."""


class CallSource(AttemptObserver):
    """An attempt that makes its `TryCall` when there is a stream for it."""

    @abstractmethod
    def try_call(self) -> TryCall:
        """Make it. Called once at most."""


class FastClient(RunnerClient):
    """A client that can begin an engagement at once. Without it, each engagement is a block, whose
    beginning waits for a connection and for the hand-over to the transport."""

    @abstractmethod
    def begin(
        self, call: CallSource, *, first: Data, request_id: str = "", deadline: float = math.inf
    ) -> BegunEngagement | None:
        """Like `RunnerClient.engage` for a call whose whole body is ``first``, if there is nothing
        to wait for. Its `TryCall` and its body are sent in this turn of the scheduler. If the
        connection breaks before the end of the turn they are never sent, and ``receive`` raises
        `NotSent`.

        ``call`` is told of the commit before this returns. ``None`` if there is something to wait
        for. Raises what `CallSource.try_call` raises. Synchronous.
        """


class FastEngagement(ClientEngagement):
    """An engagement that knows which frames have arrived. Without it, each frame is awaited, and
    so is the end of the stream, in a cancel scope."""

    @abstractmethod
    def receive_ready(self) -> RunnerFrame | None:
        """The next frame, if it is here. ``None``: ask ``receive``."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether ``receive`` will certainly return ``None``. May be false although it will."""


class BegunEngagement(FastEngagement):
    """An engagement from `FastClient.begin`. It is no block: end it with `leave`."""

    @abstractmethod
    def leave(self) -> None:
        """End it; the runner cancels a call that has not ended. Not a checkpoint."""

    @abstractmethod
    def cut(self) -> None:
        """Break it off, whoever works with it: the runner cancels the call, and ``receive`` raises
        `EngagementFailed`. Synchronous."""


# --- the runner's side ---------------------------------------------------------------------


class FastService(RunnerService):
    """A service that looks at a call before the call has a task. Without it, a call that is refused
    for want of room costs a task, too."""

    @abstractmethod
    def begin_engage(
        self, engagement: ServerEngagement, first: TryCall
    ) -> Finished | Callable[[], Awaitable[None]]:
        """The whole answer, if the engagement that begins with ``first`` is refused at once. Else
        what to call and await instead of `RunnerService.engage`; it receives ``first`` again.

        Synchronous: it sends and receives nothing. Must not raise.
        """


class FastAgent(RunnerAgent):
    """An agent that knows at once that it has no room for a call, and its load without the list of
    its containers. Without it, no call is refused before it is submitted, and each look at the load
    lists all containers."""

    @abstractmethod
    def refuse(self, call: PendingCall) -> bool:
        """Refuse ``call`` if `submit` certainly would, at once, with `ServerBusy`. Then the call is
        over and must not be submitted. Synchronous."""

    @abstractmethod
    def load_figures(self) -> LoadHint | None:
        """Like `load`, but may leave out ``warm`` if listing the containers takes long; the hint is
        not ``complete`` then."""


class FastWriter:
    """A `ResponseWriter` that may take a response at once. Without it, the agent writes each
    response in a cancel scope with the call's time limit.

    Both methods do and raise the same as the plain ones, if there is nothing to wait for. Else they
    do nothing and return false. (Not an ABC, for the same reason as `FastRunner`.)
    """

    @abstractmethod
    def start_now(self, status: int, headers: Headers) -> bool:
        """Like `ResponseWriter.start`."""

    @abstractmethod
    def write_now(self, data: bytes) -> bool:
        """Like `ResponseWriter.write`."""
