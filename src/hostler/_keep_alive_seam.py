"""The seam of what decides how long idle containers stay. Part of `hostler.abc`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Protocol


class KeptContainer(Protocol):
    """A hot container as a `KeepAlive` sees it. It is hashable, and equal to itself only."""

    @property
    def key(self) -> Hashable:
        """Its slot key: what a call must have in common with it."""

    @property
    def memory(self) -> int:
        """Bytes that its end frees; 0 = it is counted with none."""

    @property
    def idle_timeout(self) -> float:
        """Seconds: the ``idle_timeout`` of its function."""

    @property
    def start_seconds(self) -> float:
        """How long it took from its launch until it could take a call."""

    @property
    def idle_since(self) -> float:
        """When it has become idle, in seconds."""

    @property
    def level(self) -> int:
        """How many containers of its key were busy until it became idle, itself included. As calls
        take the one that was used last, it is needed when as many are busy again."""

    @property
    def ahead(self) -> bool:
        """It was started because of `KeepAlive.starts`, and no call has had it yet."""


class KeepAlive(ABC):
    """Decides how long an idle container stays, who goes first when room is scarce, and which
    functions get a container before their next call comes.

    Each agent has one of its own. All methods are synchronous and called in the agent's thread;
    none may block, raise, or call the agent. ``now`` is in seconds of the agent's clock and never
    goes back. `became_idle`, `keep_until` and `taken` are called for nearly every call, so they
    have to be quick: some microseconds. Nothing else is.

    The agent has the last word: nobody is evicted without need, nothing is started ahead of a call
    into room that others use or wait for, and containers of ``hostler/min-warm`` and
    `Agent.keep_warm` stay; a `KeepAlive` is not even told of those.
    """

    starts_ahead: bool = False
    """Whether `starts` ever returns something. Only then the agent remembers what a launch of each
    function takes."""

    # --- what the agent tells ---

    def became_idle(self, container: KeptContainer, now: float) -> None:  # noqa: B027
        """``container`` idles from here on, until it is `taken` or has `left`."""

    def taken(self, container: KeptContainer, now: float) -> None:  # noqa: B027
        """A call has the idle ``container``, whose ``idle_since`` is still what it was."""

    def left(self, container: KeptContainer, now: float, *, early: bool) -> None:  # noqa: B027
        """The idle ``container`` is on its way out; ``early`` = before its time: evicted, ended by
        itself, or its agent closes."""

    def missed(self, key: Hashable, now: float) -> None:  # noqa: B027
        """A call of ``key`` found no container; one is launched for it if there is room."""

    # --- what the agent asks ---

    @abstractmethod
    def keep_until(self, container: KeptContainer, now: float) -> float:
        """Until when the idle ``container`` stays; ``now`` or earlier = it goes. Asked when it
        becomes idle, when that time has come, and whenever the agent looks at it."""

    @abstractmethod
    def rank(self, container: KeptContainer, now: float) -> float:
        """Of the idle containers whose end helps, the lowest ranks are evicted first; among equals
        the least recently used. Also asked of containers that it was not told of, which were to
        stay."""

    def starts(self, now: float) -> Sequence[Hashable]:
        """The slot keys of which a container is to be started now. Each is told once; the agent
        does not start it if one idles or starts already, or if there is no room."""
        return ()

    def next_start(self) -> float:
        """When `starts` has something to tell; `math.inf` = not before another container has
        `left`."""
        return math.inf
