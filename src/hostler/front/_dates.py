"""The ``Date`` header, made once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

_last: tuple[int, bytes] = (0, b"")


def http_date() -> bytes:
    """Now, in the form of RFC 9110, section 5.6.7."""
    global _last
    now = int(time.time())
    if _last[0] != now:
        _last = (now, formatdate(now, usegmt=True).encode("ascii"))
    return _last[1]
