"""The rules of functions."""

from __future__ import annotations

import attrs

from hostler.datastore import FnPatch
from hostler.models import DEFAULT_IDLE_TIMEOUT, DEFAULT_MEMORY, DEFAULT_TIMEOUT, Fn

from ._annotations import check_annotations, compact_annotations, merge_annotations
from ._limits import Limits
from ._maps import check_config, merge_config
from ._texts import MAX_TEXT_BYTES, check_text, is_path_segment, is_too_long_name
from .errors import (
    FnIDProvided,
    FnInvalidIdleTimeout,
    FnInvalidMemory,
    FnInvalidName,
    FnInvalidTimeout,
    FnMissingAppID,
    FnMissingImage,
    FnMissingName,
    FnNameTooLong,
)


def check_new_fn(fn: Fn, limits: Limits) -> Fn:
    """What a datastore keeps of ``fn``: the same, with its defaults and compact annotations.

    Raises what is wrong: with the id (there must be none), app id, name, image, timeout, idle
    timeout, memory, annotations, configuration, in this order.
    """
    if fn.id:
        raise FnIDProvided
    if not fn.app_id:
        raise FnMissingAppID
    new = attrs.evolve(
        with_defaults(fn),
        config=dict(fn.config),
        annotations=compact_annotations(fn.annotations),
    )
    _check(new, limits)
    return new


def with_defaults(fn: Fn) -> Fn:
    """A copy in which memory and times of 0 are Fn's defaults."""
    return attrs.evolve(
        fn,
        memory=fn.memory or DEFAULT_MEMORY,
        timeout=fn.timeout or DEFAULT_TIMEOUT,
        idle_timeout=fn.idle_timeout or DEFAULT_IDLE_TIMEOUT,
    )


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
    _check(merged, limits)
    return fn if merged == fn else merged


def _check(fn: Fn, limits: Limits) -> None:
    if not fn.name:
        raise FnMissingName
    if is_too_long_name(fn.name):
        raise FnNameTooLong
    if not is_path_segment(fn.name):
        raise FnInvalidName
    if not fn.image:
        raise FnMissingImage
    check_text("image", fn.image, MAX_TEXT_BYTES)
    if not 1 <= fn.timeout <= limits.timeout:
        raise FnInvalidTimeout.over(limits.timeout)
    if not 1 <= fn.idle_timeout <= limits.idle_timeout:
        raise FnInvalidIdleTimeout.over(limits.idle_timeout)
    if not 1 <= fn.memory <= limits.memory:
        raise FnInvalidMemory.over(limits.memory)
    check_annotations(fn.annotations)
    check_config(fn.config)
