"""The rules of apps."""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from hostler.datastore import AppPatch
from hostler.models import App

from ._annotations import check_annotations, compact_annotations, merge_annotations
from ._maps import check_config, merge_config
from ._texts import MAX_TEXT_BYTES, check_text, is_too_long_name, is_word
from .errors import (
    AppIDProvided,
    AppInvalidName,
    AppInvalidShape,
    AppMissingName,
    AppNameImmutable,
    AppNameTooLong,
    InvalidSyslogURL,
)

SHAPES = ("", "GENERIC_X86", "GENERIC_ARM", "GENERIC_X86_ARM")
SYSLOG_SCHEMES = ("tcp", "udp", "unix", "unixgram", "tcp+tls")


def check_new_app(app: App) -> App:
    """What a datastore keeps of ``app``: the same, with compact annotations.

    Raises what is wrong: with the id (there must be none), name, annotations, syslog URL, shape,
    configuration, in this order.
    """
    if app.id:
        raise AppIDProvided
    new = attrs.evolve(
        app, config=dict(app.config), annotations=compact_annotations(app.annotations)
    )
    _check(new)
    return new


def merge_app(app: App, patch: AppPatch) -> App:
    """The changed app; ``app`` itself if nothing changes. ``patch.id`` is not looked at.

    Raises `AppNameImmutable`, and what is wrong with the result.
    """
    if patch.name and patch.name != app.name:
        raise AppNameImmutable
    merged = attrs.evolve(
        app,
        config=merge_config(app.config, patch.config),
        annotations=merge_annotations(app.annotations, patch.annotations),
        syslog_url=app.syslog_url if patch.syslog_url is None else patch.syslog_url,
    )
    _check(merged)
    return app if merged == app else merged


def _check(app: App) -> None:
    if not app.name:
        raise AppMissingName
    if is_too_long_name(app.name):
        raise AppNameTooLong
    if not is_word(app.name):
        raise AppInvalidName
    check_annotations(app.annotations)
    check_syslog_url(app.syslog_url)
    if app.shape not in SHAPES:
        raise AppInvalidShape
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
        raise InvalidSyslogURL.of(url, str(error)) from error
    if parts.scheme not in SYSLOG_SCHEMES:
        known = ", ".join(SYSLOG_SCHEMES)
        raise InvalidSyslogURL.of(url, f"invalid scheme, only [{known}] are supported")
    if not target:
        raise InvalidSyslogURL.of(url, "it names no target")
