"""The time that what runs gets to finish when a node stops."""

from __future__ import annotations

import math

import trio

REMOVAL = 5.0
"""Seconds for the removal of containers, at the end of a drain: most of them are gone before."""


class DrainBudget:
    """A time budget of one drain, for all parts of a node together.

    It begins to run when the first of them asks for its end; whoever drains later has what is left.
    Given to one part only, it is just a number of ``seconds`` that calls have; ``math.inf`` = no
    limit. Those who remove containers have ``removal`` seconds more.
    """

    def __init__(self, seconds: float, *, removal: float | None = None) -> None:
        self.seconds = seconds
        self.removal = REMOVAL if removal is None else removal
        self._deadline: float | None = None

    @classmethod
    def for_all(cls, seconds: float) -> DrainBudget:
        """A budget of so many seconds for calls and removals together, of which a quarter is left
        for the latter, `REMOVAL` at most. They have no less than that if all is over at once."""
        total = max(seconds, REMOVAL)
        calls = min(seconds, total - min(REMOVAL, total / 4))
        return cls(calls, removal=total - calls if calls < math.inf else REMOVAL)

    @classmethod
    def of(cls, grace: float | DrainBudget) -> DrainBudget:
        """``grace`` itself, or a budget of so many seconds."""
        return grace if isinstance(grace, DrainBudget) else cls(grace)

    def __repr__(self) -> str:
        if self._deadline is None:
            return f"<DrainBudget of {self.seconds:g} s>"
        return f"<DrainBudget of {self.seconds:g} s until {self._deadline:g}>"

    def deadline(self) -> float:
        """When it ends for calls, as of `trio.current_time`."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self.seconds
        return self._deadline

    def end(self) -> float:
        """When it ends for who removes containers."""
        return self.deadline() + self.removal
