"""How much a function may ask for."""

from __future__ import annotations

import attrs

MAX_MEMORY = 8192
"""MB a function may ask for (Fn's default limit)."""
MAX_TIMEOUT = 300
"""Seconds a function may run (Fn's default limit for synchronous calls)."""
MAX_IDLE_TIMEOUT = 3600
"""Seconds a hot container may idle (Fn's default limit)."""


@attrs.frozen(kw_only=True)
class Limits:
    """The most that a function may ask for; the least is 1 of each."""

    memory: int = MAX_MEMORY
    """MB (2**20 bytes)."""
    timeout: int = MAX_TIMEOUT
    """Seconds."""
    idle_timeout: int = MAX_IDLE_TIMEOUT
    """Seconds."""
