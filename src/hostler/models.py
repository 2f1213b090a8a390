"""The values that a call is made of: `Call`, `App`, `Fn`; and `Trigger`, a way to reach a function.

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


@attrs.define
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
    """A group of functions that share configuration.

    An ``id`` of "" is one that a datastore has yet to give; a date of ``None`` is unset. What the
    values may be, and how an app is changed, is in `hostler.rules`.
    """

    id: str
    name: str
    config: dict[str, str] = attrs.field(factory=dict, repr=False)
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
    syslog_url: str = ""
    shape: str = ""
    """The processors that its functions are for: ``GENERIC_X86`` and the like; "" = unsaid."""
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None


@attrs.define(kw_only=True)
class Fn:
    """A function: an image and how to run it. Units as in `Call`, ids and dates as in `App`."""

    id: str
    name: str
    app_id: str
    image: str
    memory: int = DEFAULT_MEMORY
    timeout: int = DEFAULT_TIMEOUT
    idle_timeout: int = DEFAULT_IDLE_TIMEOUT
    config: dict[str, str] = attrs.field(factory=dict, repr=False)
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
    shape: str = ""
    """Its app's, when it was made."""
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None


@attrs.define(kw_only=True)
class Trigger:
    """A way to call a function other than by its id. Ids and dates as in `App`."""

    id: str
    name: str
    app_id: str
    fn_id: str
    type: str
    """``http``: there is no other."""
    source: str
    """Of an ``http`` trigger the path below ``/t/<app name>``, with its leading slash."""
    annotations: dict[str, msgspec.Raw] = attrs.Factory(dict)
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None
