"""Configurations: maps of texts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .errors import InvalidText

MAX_CONFIG_BYTES = 1_048_576
"""Of a configuration as JSON. Ours: environments of processes are not much larger."""


def check_config(config: Mapping[str, str]) -> None:
    """Raises `InvalidText` for a configuration over 1 MiB and for what is no Unicode."""
    try:
        size = len(msgspec.json.encode(config))
    except UnicodeEncodeError:
        raise InvalidText.not_unicode("config") from None
    if size > MAX_CONFIG_BYTES:
        raise InvalidText.too_long("config as JSON", MAX_CONFIG_BYTES)


def merge_config(config: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """``config`` with ``changes``, of which an empty value removes its key."""
    return {
        key: value for key, value in {**config, **changes}.items() if value or key not in changes
    }
