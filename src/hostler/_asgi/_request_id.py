"""Who asks, for the lines that a node logs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hostler.ids import new_id

_REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
"""What a client's request id has to look like: it goes into logs, and into the metadata of calls
to runners. Another is replaced by one of our own."""


def request_id(values: Sequence[str] | None) -> str:
    """That of a request whose header for it has ``values``."""
    return values[0] if values and _REQUEST_ID.fullmatch(values[0]) else new_id()
