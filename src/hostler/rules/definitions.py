"""Rules of apps, functions and triggers: checks of new ones, merges of patches."""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from ..datastore import AppPatch, FnPatch, TriggerPatch
from ..models import DEFAULT_IDLE_TIMEOUT, DEFAULT_MEMORY, DEFAULT_TIMEOUT, App, Fn, Trigger
from . import errors
from .values import (
    MAX_SOURCE_BYTES,
    MAX_TEXT_BYTES,
    check_annotations,
    check_config,
    check_text,
    compact_annotations,
    is_path_segment,
    is_too_long_name,
    is_word,
    merge_annotations,
    merge_config,
)

SHAPES = ("", "GENERIC_X86", "GENERIC_ARM", "GENERIC_X86_ARM")
SYSLOG_SCHEMES = ("tcp", "udp", "unix", "unixgram", "tcp+tls")


def check_new_app(app: App) -> App:
    """What a datastore keeps of ``app``: the same, with compact annotations.

    Raises what is wrong: with the id (there must be none), name, annotations, syslog URL, shape,
    configuration, in this order.
    """
    if app.id:
        raise errors.AppIDProvided
    new = attrs.evolve(
        app, config=dict(app.config), annotations=compact_annotations(app.annotations)
    )
    _check_app(new)
    return new


def merge_app(app: App, patch: AppPatch) -> App:
    """The changed app; ``app`` itself if nothing changes. ``patch.id`` is not looked at.

    Raises `AppNameImmutable`, and what is wrong with the result.
    """
    if patch.name and patch.name != app.name:
        raise errors.AppNameImmutable
    merged = attrs.evolve(
        app,
        config=merge_config(app.config, patch.config),
        annotations=merge_annotations(app.annotations, patch.annotations),
        syslog_url=app.syslog_url if patch.syslog_url is None else patch.syslog_url,
    )
    _check_app(merged)
    return app if merged == app else merged


def _check_app(app: App) -> None:
    if not app.name:
        raise errors.AppMissingName
    if is_too_long_name(app.name):
        raise errors.AppNameTooLong
    if not is_word(app.name):
        raise errors.AppInvalidName
    check_annotations(app.annotations)
    check_syslog_url(app.syslog_url)
    if app.shape not in SHAPES:
        raise errors.AppInvalidShape
    check_config(app.config)


def check_syslog_url(url: str) -> None:
    """An empty one is fine. Raises `InvalidSyslogURL`, whose text has the URL and the reason, and
    `InvalidText`."""
    check_text("syslog_url", url, MAX_TEXT_BYTES)
    if not url:
        return
    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # raises for one that is no number
        target = parts.path if parts.scheme.startswith("unix") else parts.hostname
    except ValueError as error:
        raise errors.InvalidSyslogURL.of(url, str(error)) from error
    if parts.scheme not in SYSLOG_SCHEMES:
        known = ", ".join(SYSLOG_SCHEMES)
        raise errors.InvalidSyslogURL.of(url, f"invalid scheme, only [{known}] are supported")
    if not target:
        raise errors.InvalidSyslogURL.of(url, "it names no target")


def check_new_fn(fn: Fn, limits: Limits) -> Fn:
    """What a datastore keeps of ``fn``: the same, with its defaults and compact annotations.

    Raises what is wrong: with the id (there must be none), app id, name, image, timeout, idle
    timeout, memory, annotations, configuration, in this order.
    """
    if fn.id:
        raise errors.FnIDProvided
    if not fn.app_id:
        raise errors.FnMissingAppID
    new = attrs.evolve(
        fn,
        memory=fn.memory or DEFAULT_MEMORY,
        timeout=fn.timeout or DEFAULT_TIMEOUT,
        idle_timeout=fn.idle_timeout or DEFAULT_IDLE_TIMEOUT,
        config=dict(fn.config),
        annotations=compact_annotations(fn.annotations),
    )
    _check_fn(new, limits)
    return new


def merge_fn(fn: Fn, patch: FnPatch, limits: Limits) -> Fn:
    """The changed function; ``fn`` itself if nothing changes. ``patch.id`` is not looked at.

    Raises what is wrong with the result: also what an older, higher limit let in.
    """
    merged = attrs.evolve(
        fn,
        image=patch.image or fn.image,
        memory=patch.memory or fn.memory,
        timeout=patch.timeout or fn.timeout,
        idle_timeout=patch.idle_timeout or fn.idle_timeout,
        config=merge_config(fn.config, patch.config),
        annotations=merge_annotations(fn.annotations, patch.annotations),
    )
    _check_fn(merged, limits)
    return fn if merged == fn else merged


def _check_fn(fn: Fn, limits: Limits) -> None:
    if not fn.name:
        raise errors.FnMissingName
    if is_too_long_name(fn.name):
        raise errors.FnNameTooLong
    if not is_path_segment(fn.name):
        raise errors.FnInvalidName
    if not fn.image:
        raise errors.FnMissingImage
    check_text("image", fn.image, MAX_TEXT_BYTES)
    if not 1 <= fn.timeout <= limits.timeout:
        raise errors.FnInvalidTimeout.over(limits.timeout)
    if not 1 <= fn.idle_timeout <= limits.idle_timeout:
        raise errors.FnInvalidIdleTimeout.over(limits.idle_timeout)
    if not 1 <= fn.memory <= limits.memory:
        raise errors.FnInvalidMemory.over(limits.memory)
    check_annotations(fn.annotations)
    check_config(fn.config)


TRIGGER_TYPES = ("http",)


def check_new_trigger(trigger: Trigger) -> Trigger:
    """What a datastore keeps of ``trigger``: the same, with compact annotations.

    Raises what is wrong: with the id and the dates (there must be none), app id, name, function
    id, type, source, annotations, in this order.
    """
    if trigger.id:
        raise errors.TriggerIDProvided
    if trigger.created_at is not None:
        raise errors.TriggerCreatedAtProvided
    if trigger.updated_at is not None:
        raise errors.TriggerUpdatedAtProvided
    new = attrs.evolve(trigger, annotations=compact_annotations(trigger.annotations))
    _check_trigger(new)
    return new


def merge_trigger(trigger: Trigger, patch: TriggerPatch) -> Trigger:
    """The changed trigger; ``trigger`` itself if nothing changes. ``patch.id`` is not looked at.

    Raises what is wrong with the result. Whether it goes with the app, the function and the other
    triggers has to be checked as for a new one.
    """
    merged = attrs.evolve(
        trigger,
        name=patch.name or trigger.name,
        app_id=patch.app_id or trigger.app_id,
        fn_id=patch.fn_id or trigger.fn_id,
        source=patch.source or trigger.source,
        annotations=merge_annotations(trigger.annotations, patch.annotations),
    )
    _check_trigger(merged)
    return trigger if merged == trigger else merged


def _check_trigger(trigger: Trigger) -> None:
    if not trigger.app_id:
        raise errors.TriggerMissingAppID
    if not trigger.name:
        raise errors.TriggerMissingName
    if is_too_long_name(trigger.name):
        raise errors.TriggerNameTooLong
    if not is_word(trigger.name):
        raise errors.TriggerInvalidName
    if not trigger.fn_id:
        raise errors.TriggerMissingFnID
    if trigger.type not in TRIGGER_TYPES:
        raise errors.TriggerTypeUnknown
    _check_source(trigger.source)
    check_annotations(trigger.annotations)


def _check_source(source: str) -> None:
    if not source:
        raise errors.TriggerMissingSource
    if not source.startswith("/"):
        raise errors.TriggerMissingSourcePrefix
    check_text("source", source, MAX_SOURCE_BYTES)


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
