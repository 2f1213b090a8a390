"""One call that looks for a runner: what its attempts and its waiting have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..abc import RunnerCall
from ._room import Line, Room
from ._warm_index import Need

if TYPE_CHECKING:
    from ._tracker import TrackedAttempt


class Search:
    """``call``, which came at ``now`` and needs ``need``. It would wait in ``line`` of ``room``.

    The ``deadline`` of the placer or the call (`trio.current_time`) and `refuse` end attempts that
    are not committed yet. Those before ``gentle_until`` are not to have containers evicted that are
    worth keeping.
    """

    refused = False
    committed: TrackedAttempt | None = None
    """The attempt whose runner has the call, or has run it."""
    attempt_at = left_at = math.nan
    """When the latest attempt began, and when the latest that is over was."""
    starts = False
    """It has a container started for its function, and has not got one yet."""
    _scopes: set[trio.CancelScope] | None = None

    def __init__(
        self,
        call: RunnerCall,
        need: Need,
        room: Room,
        line: Line,
        now: float,
        deadline: float,
        gentle_until: float = -math.inf,
    ) -> None:
        self.call = call
        self.need = need
        self.room = room
        self.line = line
        self.arrived = now
        self.placers_deadline = deadline
        self.deadline = min(deadline, call.deadline)
        self.gentle_until = gentle_until

    @property
    def is_committed(self) -> bool:
        """A runner has the call, or has run it."""
        return self.committed is not None

    def has_container(self) -> None:
        """It has a container, or gets none: nothing is started for it any more. Idempotent."""
        if self.starts:
            self.starts = False
            self.line.starting -= 1

    def over(self, now: float) -> bool:
        """Whether no runner is to be tried any more."""
        return self.refused or now >= self.deadline

    def refuse(self) -> None:
        """Give up at once, unless a runner has the call."""
        self.refused = True
        for scope in self._scopes or ():
            scope.cancel()

    @contextmanager
    def searching(self, seconds: float = math.inf) -> Iterator[trio.CancelScope]:
        """A block that ends with the time of the search, after ``seconds`` and by `refuse`, unless
        it was `found` in it."""
        until = min(self.deadline, trio.current_time() + seconds)
        with trio.CancelScope(deadline=until) as scope:
            if self._scopes is None:
                self._scopes = set()
            self._scopes.add(scope)
            if self.refused:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def found(self, scope: trio.CancelScope) -> None:
        """A runner has the call: the block of ``scope`` ends by itself from now on."""
        scope.deadline = math.inf
        if self._scopes is not None:
            self._scopes.discard(scope)
