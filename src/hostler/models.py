"""The values that a call is made of: `Call`, `App`, `Fn`.

A `Call` is mutable on purpose: call options and call overriders change it in place before it is
submitted. Its JSON form, which is part of the wire contract, lives in `hostler._call_json`.
Configurations and headers may hold secrets: they are in no repr.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import attrs
import msgspec

CallType = Literal["", "sync", "detached"]

DEFAULT_TIMEOUT = 30
"""Seconds a function may run if it does not say (Fn's default)."""
DEFAULT_IDLE_TIMEOUT = 30
"""Seconds a hot container may idle if the function does not say (Fn's default)."""
DEFAULT_MEMORY = 128
"""MB (2**20 bytes) of a function that does not say (Fn's default)."""


class StatSample(msgspec.Struct, frozen=True):
    """One sample of a container's counters."""

    timestamp: str
    metrics: dict[str, int]


@attrs.define(kw_only=True)
class Call:
    """One call of a function. Units: seconds, MB (2**20 bytes), milli-CPUs, ``_ns`` nanoseconds.

    ``None`` as a date means unset. ``headers`` have canonical names (``Content-Type``).
    ``annotations`` hold compact raw JSON values.
    """

    id: str = ""
    status: str = ""
    image: str = ""
    delay: int = 0
    type: CallType = ""
    payload: str = ""
    url: str = ""
    method: str = ""
    timeout: int = 0
    idle_timeout: int = 0
    tmpfs_size: int = 0
    memory: int = 0
    cpus: int = 0
    config: dict[str, str] = attrs.field(factory=dict, repr=False)
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
    headers: dict[str, list[str]] = attrs.field(factory=dict, repr=False)
    syslog_url: str = ""
    completed_at: dt.datetime | None = None
    created_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    execution_duration_ns: int = 0
    stats: list[StatSample] = attrs.Factory(list)
    error: str = ""
    app_id: str = ""
    app_name: str = ""
    trigger_id: str = ""
    fn_id: str = ""


@attrs.define(kw_only=True)
class App:
    """A group of functions that share configuration."""

    id: str
    name: str
    config: dict[str, str] = attrs.field(factory=dict, repr=False)
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
    syslog_url: str = ""


@attrs.define(kw_only=True)
class Fn:
    """A function: an image and how to run it. Units as in `Call`."""

    id: str
    name: str
    app_id: str
    image: str
    memory: int = DEFAULT_MEMORY
    timeout: int = DEFAULT_TIMEOUT
    idle_timeout: int = DEFAULT_IDLE_TIMEOUT
    config: dict[str, str] = attrs.field(factory=dict, repr=False)
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
