"""Apps, functions, triggers and calls as values.

A `Call` is mutable on purpose: call options and call overriders change it in place before it is
submitted. Its JSON form, which is part of the wire contract, lives in `hostler._call_document`.
Configurations and headers may hold secrets: they are in no repr.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import attrs
import msgspec

from .dates import format_date
from .errors import HostlerError

__all__ = [
    "DEFAULT_IDLE_TIMEOUT",
    "DEFAULT_MEMORY",
    "DEFAULT_TIMEOUT",
    "MAX_SAMPLES",
    "App",
    "Call",
    "CallStats",
    "CallType",
    "Fn",
    "InvalidAnnotation",
    "StatSample",
    "TimedSample",
    "Trigger",
    "annotation",
    "downsample",
]

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


_T = TypeVar("_T")


class InvalidAnnotation(HostlerError):
    """An annotation is missing, or is not of the type that is wanted."""


def annotation(
    of: App | Fn | Trigger | Call, key: str, type_: type[_T], default: _T | None = None
) -> _T:
    """The annotation ``key``, decoded: ``annotation(request.app, "example.com/tier", str)``.

    ``type_`` is what its JSON has to be: ``str``, ``int``, ``list[str]``, an attrs class, ... (as
    msgspec has it). Raises `InvalidAnnotation`, which names the key, for another value, and for
    none without a ``default``.
    """
    raw = of.annotations.get(key)
    if raw is None:
        if default is None:
            raise InvalidAnnotation(f"{_described(of)} has no annotation {key!r}")
        return default
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.DecodeError as error:
        raise InvalidAnnotation(f"annotation {key!r} of {_described(of)}: {error}") from error


def _described(of: App | Fn | Trigger | Call) -> str:
    kind = type(of).__name__.lower()
    return f"{kind} {of.id if isinstance(of, Call) else of.name!r}"


MAX_SAMPLES = 240
"""Samples that are kept of a call (Fn's number)."""


@attrs.frozen
class TimedSample:
    """A sample at a Unix time in nanoseconds."""

    at_ns: int
    metrics: Mapping[str, int]


def downsample(samples: Sequence[TimedSample], limit: int = MAX_SAMPLES) -> list[TimedSample]:
    """At most ``limit`` samples, in order of time: the means (whole numbers) over windows of equal
    length, of which those without a sample are left out.

    The samples must be in order of time. As in Fn, a sample at the border of two windows belongs
    to the earlier one, and the last of ``limit`` windows takes all the rest.
    """
    if len(samples) <= limit:
        return list(samples)
    start_ns = samples[0].at_ns
    window_ns = max(1, (samples[-1].at_ns - start_ns) // limit)
    groups: list[list[TimedSample]] = []
    latest = -1
    for sample in samples:
        index = max(0, sample.at_ns - start_ns - 1) // window_ns
        if not groups or (index != latest and len(groups) < limit):
            groups.append([])
        groups[-1].append(sample)
        latest = index
    return [_mean(group) for group in groups]


def _mean(group: Sequence[TimedSample]) -> TimedSample:
    names = {name for sample in group for name in sample.metrics}
    return TimedSample(
        sum(sample.at_ns for sample in group) // len(group),
        {
            name: sum(sample.metrics.get(name, 0) for sample in group) // len(group)
            for name in names
        },
    )


class CallStats:
    """Collects the samples of one call. Many samples are downsampled, so that a call of hours needs
    no more memory than one of minutes."""

    def __init__(self) -> None:
        self._samples: list[TimedSample] = []

    def add(self, at_ns: int, metrics: Mapping[str, int]) -> None:
        """Take what the container used at ``at_ns`` (nanoseconds since 1970), under Fn's names."""
        self._samples.append(TimedSample(at_ns, metrics))
        if len(self._samples) >= 4 * MAX_SAMPLES:
            self._samples = downsample(self._samples)

    def result(self) -> list[StatSample]:
        """For the call's model."""
        samples = downsample(self._samples)
        return [StatSample(_text(sample.at_ns), dict(sample.metrics)) for sample in samples]


def _text(at_ns: int) -> str:
    return format_date(dt.datetime.fromtimestamp(at_ns / 1e9, dt.UTC))
