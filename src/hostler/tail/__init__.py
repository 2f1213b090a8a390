"""What functions have printed lately, for people who look: ``GET /logs``.

_ring      the last lines of a node, bounded, with a cursor for each reader
_joint     the same of several processes, which tell each other
_app       the ASGI application: newline-delimited JSON, once or followed

It shares nothing with log collectors (`hostler.runner.FunctionLogs`): a reader takes no line from
anybody, and a reader that is too slow loses lines, which it is told.
"""

from ._app import tail_app
from ._joint import JointTail, TailShare
from ._ring import LogTail, Where

__all__ = ["JointTail", "LogTail", "TailShare", "Where", "tail_app"]
