"""Request bodies: in memory, and streams that can be sent again.

What is kept of bodies is counted over all calls of a node by one `BodyBudget`, and goes to
temporary files where it is much.
"""

from __future__ import annotations

from ..call import BodyConsumed, BytesBody
from ._budget import BodyBudget, NotKept
from ._memory import CountedBody
from ._metrics import BodyMetrics
from ._replay import REPLAY_LIMIT, ReplayBody
from ._whole import keep_whole

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
