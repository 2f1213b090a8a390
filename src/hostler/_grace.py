"""The time that what runs gets to finish when a node stops."""

from __future__ import annotations

import trio


class Grace:
    """A time budget of one drain, for all parts of a node together.

    It begins to run when the first of them asks for its end; whoever drains later has what is left.
    Given to one part only, it is just a number of ``seconds``; ``math.inf`` = no limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None

    @classmethod
    def of(cls, grace: float | Grace) -> Grace:
        """``grace`` itself, or a budget of so many seconds."""
        return grace if isinstance(grace, Grace) else cls(grace)

    def __repr__(self) -> str:
        if self._deadline is None:
            return f"<Grace of {self.seconds:g} s>"
        return f"<Grace of {self.seconds:g} s until {self._deadline:g}>"

    def deadline(self) -> float:
        """When it ends, as of `trio.current_time`."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self.seconds
        return self._deadline
