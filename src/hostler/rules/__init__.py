"""What apps, functions and triggers may be, and how a patch changes them: pure, and Fn's rules.

A check raises the first of the errors in `hostler.rules.errors` that applies, in Fn's order. A
merge returns a new value, or the very object that it was given if there is nothing to change;
dates are left to the datastore.

* ``definitions``: rules of apps, functions and triggers: checks of new ones, merges of patches
* ``errors``: what can be wrong with apps, functions and triggers: Fn's codes and texts
* ``values``: rules of values: names, configuration maps, annotations, page cursors
"""

from __future__ import annotations

from .definitions import (
    MAX_IDLE_TIMEOUT,
    MAX_MEMORY,
    MAX_TIMEOUT,
    SHAPES,
    TRIGGER_TYPES,
    Limits,
    check_new_app,
    check_new_fn,
    check_new_trigger,
    check_syslog_url,
    merge_app,
    merge_fn,
    merge_trigger,
)
from .values import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_SOURCE_BYTES,
    MAX_TEXT_BYTES,
    MAX_VALUE_BYTES,
    PageCursor,
    decode_cursor,
    encode_cursor,
    is_annotation_key,
    is_path_segment,
    is_word,
    parse_per_page,
)

__all__ = [
    "MAX_IDLE_TIMEOUT",
    "MAX_KEYS",
    "MAX_KEY_BYTES",
    "MAX_MEMORY",
    "MAX_NAME_BYTES",
    "MAX_SOURCE_BYTES",
    "MAX_TEXT_BYTES",
    "MAX_TIMEOUT",
    "MAX_VALUE_BYTES",
    "SHAPES",
    "TRIGGER_TYPES",
    "Limits",
    "PageCursor",
    "check_new_app",
    "check_new_fn",
    "check_new_trigger",
    "check_syslog_url",
    "decode_cursor",
    "encode_cursor",
    "is_annotation_key",
    "is_path_segment",
    "is_word",
    "merge_app",
    "merge_fn",
    "merge_trigger",
    "parse_per_page",
]
