"""JSON values that are kept as text."""

from __future__ import annotations

import re

import msgspec

_BLANK = re.compile(rb"[ \t\r\n]")
_STRING_OR_BLANKS = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)


def compact(raw: msgspec.Raw) -> msgspec.Raw:
    """``raw`` without white space between its tokens, on memory of its own.

    The order of members, numbers and escapes stay as they are: annotations are compared, and
    enter slot keys, as bytes. ``raw`` must be valid JSON, as what msgspec decoded is.
    """
    text = bytes(raw)
    if _BLANK.search(text):
        text = _STRING_OR_BLANKS.sub(_keep_string, text)
    return msgspec.Raw(text)


def _keep_string(match: re.Match[bytes]) -> bytes:
    return match[1] or b""


def is_null(raw: msgspec.Raw) -> bool:
    """Whether the value is ``null``."""
    return bytes(raw) == b"null"
