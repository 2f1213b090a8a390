"""What apps, functions and triggers may be, and how a patch changes them: pure, and Fn's rules.

A check raises the first of the errors in `hostler.rules.errors` that applies, in Fn's order. A
merge returns a new value, or the very object that it was given if there is nothing to change;
dates are left to the datastore.
"""

from __future__ import annotations

from ._annotations import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_VALUE_BYTES,
    check_annotations,
    is_annotation_key,
    merge_annotations,
)
from ._apps import SHAPES, check_new_app, check_syslog_url, merge_app
from ._fns import check_new_fn, merge_fn, with_defaults
from ._limits import MAX_IDLE_TIMEOUT, MAX_MEMORY, MAX_TIMEOUT, Limits
from ._paging import Cursor, decode_cursor, encode_cursor, parse_per_page
from ._texts import MAX_NAME_BYTES, MAX_SOURCE_BYTES, MAX_TEXT_BYTES, is_path_segment, is_word
from ._triggers import TRIGGER_TYPES, check_new_trigger, check_trigger, merge_trigger

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
    "Cursor",
    "Limits",
    "check_annotations",
    "check_new_app",
    "check_new_fn",
    "check_new_trigger",
    "check_syslog_url",
    "check_trigger",
    "decode_cursor",
    "encode_cursor",
    "is_annotation_key",
    "is_path_segment",
    "is_word",
    "merge_annotations",
    "merge_app",
    "merge_fn",
    "merge_trigger",
    "parse_per_page",
    "with_defaults",
]
