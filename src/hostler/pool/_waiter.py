"""A call that stands in a line, and the turn with which it leaves it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import trio

from ..abc import Runner
from ..errors import ServerBusy

if TYPE_CHECKING:
    from ._room import Line


@attrs.frozen(eq=False)
class Turn:
    """The right to try: all runners, or the one where there may be room now. ``refused`` are the
    lines for which it had none, ``absent`` those whose pool does not list it, ``hot`` is the line
    of the call that has ended there. ``launch``: a container is to be started for the call."""

    runner: Runner | None = None
    refused: frozenset[Line] = frozenset()
    absent: frozenset[Line] = frozenset()
    hot: Line | None = None
    launch: bool = False


class Waiter:
    """A call in a line, which came at ``arrived`` (`trio.current_time`) and gives up at
    ``deadline``. When it is gentle no more (``gentle_until``), there may be room for it where there
    was none before."""

    def __init__(
        self,
        line: Line,
        ticket: int,
        arrived: float,
        deadline: float,
        *,
        gentle_until: float = -math.inf,
        untold: bool = False,
    ) -> None:
        self.gentle_until = gentle_until
        self.urgent_at = math.inf
        """When it is to try in any case."""
        if gentle_until > -math.inf and gentle_until > trio.current_time():
            self.urgent_at = gentle_until
        self.untold = untold
        """Nobody knows how long its client waits."""
        self.refusal: ServerBusy | None = None
        """Why it has to go, without a turn."""
        self.ticket = ticket
        self.arrived = arrived
        self._line = line
        self._deadline = deadline
        self._look_at = math.inf
        self._scope: trio.CancelScope | None = None
        self._woken = trio.Event()
        self._turn: Turn | None = None

    def __repr__(self) -> str:
        return f"<Waiter {self.ticket} woken={self._woken.is_set()}>"

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    async def wait(self) -> Turn | None:
        """Stand in line until it is this call's turn; ``None`` = give up.

        If this is cancelled, the place is free and a turn that came too late somebody else's.
        """
        self._line.join(self)
        try:
            return await self._wait()
        except BaseException:
            if self._turn is not None:
                self._line.hand_on(self._turn)
            raise
        finally:
            self._line.leave(self)

    async def _wait(self) -> Turn | None:
        while True:
            until = min(self._look_at, self._deadline)
            with trio.CancelScope(deadline=until) as self._scope:
                await self._woken.wait()
            if self._woken.is_set():
                return self._turn
            if trio.current_time() >= self._deadline:
                return None
            self._line.advance()

    def look_at(self, at: float) -> None:
        """Look after the line at ``at``: what the head does for all."""
        if at != self._look_at:
            self._look_at = at
            if self._scope is not None:
                self._scope.deadline = min(at, self._deadline)

    def wake(self, turn: Turn | None) -> None:
        """End the wait with ``turn``, for good."""
        self._turn = turn
        self._woken.set()
