"""What functions have printed lately, for people who look: ``GET /logs``.

It shares nothing with log collectors (`hostler.runner.FunctionLogs`). Readers take no lines from
each other. A reader that is too slow loses lines, and is told so.

* ``aggregate``: lines of all worker processes of a node
* ``app``: `GET /logs`
* ``ring``: ring of the last lines, bounded in bytes
"""

from .aggregate import AggregateTail
from .app import tail_app
from .ring import LogTail, Where

__all__ = ["AggregateTail", "LogTail", "Where", "tail_app"]
