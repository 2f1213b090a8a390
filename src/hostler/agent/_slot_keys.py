"""Slot keys of calls, computed once for all calls of a function that are the same in what enters
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostler.models import Call
from hostler.slot_key import slot_key

MAX_KEYS = 1024
"""Functions that are remembered."""


class SlotKeys:
    """Remembers what the latest key of each function was made of: to compare that takes a tenth of
    the time."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], bytes]] = {}

    def __repr__(self) -> str:
        return f"<SlotKeys of {len(self._known)} functions>"

    def key(self, call: Call, extension: str) -> bytes:
        """As `slot_key`."""
        found = self._known.get(call.fn_id)
        if found is not None and found[0] == _parts(call, extension, call.config, call.annotations):
            return found[1]
        key = slot_key(call, extension)
        if found is None and len(self._known) >= MAX_KEYS:
            self._known.clear()
        # Of copies: who has the call may change it.
        parts = _parts(call, extension, dict(call.config), dict(call.annotations))
        self._known[call.fn_id] = parts, key
        return key


def _parts(
    call: Call, extension: str, config: Mapping[str, str], annotations: Mapping[str, object]
) -> tuple[Any, ...]:
    """All that a key is made of."""
    return (
        call.app_id,
        call.syslog_url,
        call.fn_id,
        call.image,
        call.timeout,
        call.idle_timeout,
        call.tmpfs_size,
        call.memory,
        call.cpus,
        extension,
        config,
        annotations,
    )
