"""Slot keys: the hash that decides which containers may serve a call.

The composition is Fn's, byte for byte, so that an LB of either kind can compute it for a runner
of either kind. `SlotKeys` computes the key once for all calls of a function that are the same in
what enters it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .models import Call
from .protocol import MAX_SLOT_EXTENSIONS

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_keys, dict_values

__all__ = [
    "MAX_KEYS",
    "REGISTRY_TOKEN",
    "SlotExtensions",
    "SlotKeys",
    "slot_key",
]

_NUL = b"\x00"

REGISTRY_TOKEN = "FN_REGISTRY_TOKEN"  # noqa: S105  (its name)
"""The extension with a token for the image's registry. Its name is not reported: it is a secret."""

_LIMITS = struct.Struct("<IIIQQ")
"""timeout, idle timeout, tmpfs size (uint32 each), memory, milli-CPUs (uint64 each)."""

_UINT32_MASK = 2**32 - 1


def slot_key(call: Call, extension: str = "") -> bytes:
    """The 32 bytes of ``call``'s slot key.

    ``extension`` is the driver's string for the call's extensions, "" for none. What differs
    between two calls of a function (id, type, headers, URL) is not part of the key; the
    configuration is, so compute it when nobody changes that any more. Pure: a cache may be keyed
    by what it reads. Raises `ValueError` for a size that does not fit its field.
    """
    parts: list[bytes] = [
        f"{call.app_id}\0{call.syslog_url}\0{call.fn_id}\0{call.image}\0".encode(),
        _limits(call),
        _NUL,
    ]
    _add_map(parts, {key: value.encode() for key, value in call.config.items()})
    parts.append(_NUL)
    _add_map(parts, {key: bytes(value) for key, value in call.annotations.items()})
    if extension:
        parts += (extension.encode(), _NUL)
    return hashlib.sha256(b"".join(parts)).digest()


def _limits(call: Call) -> bytes:
    try:
        return _LIMITS.pack(
            call.timeout & _UINT32_MASK,  # a negative int32, as Go converts it
            call.idle_timeout & _UINT32_MASK,
            call.tmpfs_size,
            call.memory,
            call.cpus,
        )
    except struct.error as error:
        raise ValueError(
            f"no slot key for tmpfs_size={call.tmpfs_size}, memory={call.memory}, "
            f"cpus={call.cpus}: {error}"
        ) from error


def _add_map(parts: list[bytes], values: Mapping[str, bytes]) -> None:
    # Code points sort as their UTF-8 bytes do, so no key needs encoding for the comparison.
    for key in sorted(values):
        parts += (key.encode(), _NUL, values[key], _NUL)


class SlotExtensions:
    """Records which extensions a driver reads when it makes its part of a slot key. A runner
    reports their names to load balancers, which tell the hot containers of a function apart by
    them."""

    def __init__(self) -> None:
        self._read: set[str] = set()
        self._names: tuple[str, ...] = ()

    def recording(self, extensions: Mapping[str, str]) -> Mapping[str, str]:
        """``extensions`` for a driver, whose reads are recorded."""
        _ = self.names  # bounds the number of recorded names
        return _RecordedMapping(extensions, self._read)

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted; at most `MAX_SLOT_EXTENSIONS`."""
        if len(self._read) != len(self._names):
            self._read.discard(REGISTRY_TOKEN)
            self._names = tuple(sorted(self._read)[:MAX_SLOT_EXTENSIONS])
            self._read.intersection_update(self._names)
        return self._names


class _RecordedMapping(dict[str, str]):
    """A mapping that records the keys that are read. An iteration reads all keys."""

    def __init__(self, values: Mapping[str, str], read: set[str]) -> None:
        super().__init__(values)
        self._read = read

    def __getitem__(self, key: str) -> str:
        self._read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._read.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self._read.update(super().keys())
        return super().__iter__()

    def keys(self) -> dict_keys[str, str]:
        self._read.update(super().keys())
        return super().keys()

    def values(self) -> dict_values[str, str]:
        self._read.update(super().keys())
        return super().values()

    def items(self) -> dict_items[str, str]:
        self._read.update(super().keys())
        return super().items()


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
