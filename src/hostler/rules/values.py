"""Rules of values: names, configuration maps, annotations, page cursors."""

from __future__ import annotations

import base64
import binascii
import re
import string
import unicodedata
from collections.abc import Mapping

import attrs
import msgspec

from .._call_document import compact
from .errors import (
    InvalidAnnotationKey,
    InvalidAnnotationKeyLength,
    InvalidAnnotationValue,
    InvalidAnnotationValueLength,
    InvalidCursor,
    InvalidText,
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


MAX_CONFIG_BYTES = 1_048_576
"""Of a configuration as JSON. Ours: environments of processes are not much larger."""


def check_config(config: Mapping[str, str]) -> None:
    """Raises `InvalidText` for a configuration over 1 MiB and for what is no Unicode."""
    try:
        size = len(msgspec.json.encode(config))
    except UnicodeEncodeError:
        raise InvalidText.not_unicode("config") from None
    if size > MAX_CONFIG_BYTES:
        raise InvalidText.too_long("config as JSON", MAX_CONFIG_BYTES)


def merge_config(config: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """``config`` with ``changes``, of which an empty value removes its key."""
    return {
        key: value for key, value in {**config, **changes}.items() if value or key not in changes
    }


MAX_NAME_BYTES = 255

MAX_SOURCE_BYTES = 1024
"""Of a trigger's source. Ours (Fn's databases take 256 characters), as an index has to hold it."""

MAX_TEXT_BYTES = 4096
"""Of an image's name and of a syslog URL. Ours."""

_IN_PATH_SEGMENT = frozenset(string.ascii_letters + string.digits + "-_.~$&+=:@")
"""What Go's ``url.PathEscape`` leaves as it is."""


def is_too_long_name(name: str) -> bool:
    """Counts bytes, though Fn's error texts say characters. A lone surrogate counts as three."""
    return len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES


def is_word(name: str) -> bool:
    """Whether all are letters or numbers of any script (Unicode categories L and N), ``_`` and
    ``-``: the names of apps and triggers."""
    return all(char in "_-" or unicodedata.category(char)[0] in "LN" for char in name)


def is_path_segment(name: str) -> bool:
    """Whether ``name`` is its own URL path escape: the names of functions."""
    return _IN_PATH_SEGMENT.issuperset(name)


def check_text(what: str, text: str, limit: int) -> None:
    """Raises `InvalidText` for what some database can't keep: over ``limit`` bytes, NUL
    characters, half of a surrogate pair."""
    if "\0" in text:
        raise InvalidText.nul(what)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidText.not_unicode(what) from None
    if size > limit:
        raise InvalidText.too_long(what, limit)


DEFAULT_PER_PAGE = 30
MAX_PER_PAGE = 100
_NUMBER = re.compile(r"\+?[0-9]{1,18}", re.ASCII)
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


@attrs.frozen
class PageCursor:
    """The last item of a page."""

    name: str
    id: str = ""
    """Only where the next item has the same name; triggers of several functions may."""


def encode_cursor(cursor: PageCursor) -> str:
    """Unpadded URL-safe base64 of the name as Fn has it, or of name, NUL and id."""
    text = f"{cursor.name}\0{cursor.id}" if cursor.id else cursor.name
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_cursor(text: str) -> PageCursor:
    """Raises `InvalidCursor`."""
    if not _URL_SAFE.fullmatch(text):  # the decoder would skip other characters
        raise InvalidCursor
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidCursor from None
    name, _, id = decoded.partition("\0")
    if "\0" in id:
        raise InvalidCursor
    return PageCursor(name, id)


def parse_per_page(text: str) -> int:
    """The ``per_page`` of a query: what is no number over 0 means 30, and 100 is the most."""
    number = int(text) if _NUMBER.fullmatch(text) else 0
    return min(number, MAX_PER_PAGE) if number > 0 else DEFAULT_PER_PAGE
