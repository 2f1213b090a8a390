"""What an attack has come to."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """What an attack on a port saw itself. What the attacked node does with memory and CPU, and
    what happens to other callers, is for whoever runs the attack to see."""

    attack: str
    sent: int
    """Of what the attack consists of: streams, frames, connections."""
    seconds: float
    """From its begin to its end."""
    cut_after: float | None
    """Seconds until the node ended the connection, the last one if there were several; ``None`` =
    it did not."""
    note: str = ""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of an attack on nodes of our own."""

    tried: str
    happened: str
    """Counts, seconds, memory."""
    held: bool | None
    """``None`` = it could not be tried; ``happened`` says why."""
