"""What functions have printed lately, for people who look: ``GET /logs``.

It shares nothing with log collectors (`hostler.runner.FunctionLogs`): a reader takes no line from
anybody, and a reader that is too slow loses lines, which it is told.

* ``aggregate``: lines of all worker processes of a node
* ``app``: `GET /logs`
* ``ring``: ring of the last lines, bounded in bytes
"""

from .aggregate import AggregateTail
from .app import tail_app
from .ring import LogTail, Where

__all__ = ["AggregateTail", "LogTail", "Where", "tail_app"]
