"""Request bodies: in memory, and streams that can be sent again.

What is kept of bodies is counted over all calls of a node by one `BodyBudget`, and goes to
temporary files where it is much.

* ``disk``: spill files of bodies, written by threads that a hung disk can't exhaust
* ``memory``: bodies in memory, and the byte budget of all bodies of a node
* ``replay``: streamed bodies whose kept prefix, or whole, can be sent again
"""

from __future__ import annotations

from ..calls import BodyConsumed, BytesBody
from .memory import BodyBudget, BodyMetrics, CountedBody, NotKept
from .replay import REPLAY_LIMIT, ReplayBody, keep_whole

__all__ = [
    "REPLAY_LIMIT",
    "BodyBudget",
    "BodyConsumed",
    "BodyMetrics",
    "BytesBody",
    "CountedBody",
    "NotKept",
    "ReplayBody",
    "keep_whole",
]
