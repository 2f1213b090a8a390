"""Annotations: JSON values that are kept, and compared, as compact text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from hostler._call_document import compact

from .errors import (
    InvalidAnnotationKey,
    InvalidAnnotationKeyLength,
    InvalidAnnotationValue,
    InvalidAnnotationValueLength,
    TooManyAnnotationKeys,
)

MAX_KEYS = 100
MAX_KEY_BYTES = 128
MAX_VALUE_BYTES = 512
"""Of the compact text."""

_KEY = re.compile(r"[!-~]+")
_EMPTY = (b'""', b"null")


def compact_annotations(annotations: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The same without white space between tokens; the order of members stays."""
    return {key: compact(value) for key, value in annotations.items()}


def is_annotation_key(key: str) -> bool:
    """Whether its characters may be in a key; its length is another matter."""
    return _KEY.fullmatch(key) is not None


def check_annotations(annotations: Mapping[str, msgspec.Raw]) -> None:
    """Raises what is wrong with a whole set of compact ones; see `hostler.rules.errors`."""
    for key, value in annotations.items():
        if not is_annotation_key(key):
            raise InvalidAnnotationKey
        if len(key) > MAX_KEY_BYTES:
            raise InvalidAnnotationKeyLength
        if bytes(value) in _EMPTY:
            raise InvalidAnnotationValue
        if len(bytes(value)) > MAX_VALUE_BYTES:
            raise InvalidAnnotationValueLength
        if not _is_json(value):
            raise InvalidAnnotationValue
    if len(annotations) > MAX_KEYS:
        raise TooManyAnnotationKeys


def _is_json(value: msgspec.Raw) -> bool:
    """A program may have made it of anything; what is kept must be readable for ever."""
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def merge_annotations(
    annotations: Mapping[str, msgspec.Raw], changes: Mapping[str, msgspec.Raw]
) -> dict[str, msgspec.Raw]:
    """``annotations`` with ``changes``, of which ``null`` and ``""`` remove their key."""
    merged = dict(annotations)
    for key, value in compact_annotations(changes).items():
        if bytes(value) in _EMPTY:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
