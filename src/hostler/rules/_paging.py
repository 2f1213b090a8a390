"""Paging of lists."""

from __future__ import annotations

import base64
import binascii
import re

import attrs

from .errors import InvalidCursor

DEFAULT_PER_PAGE = 30
MAX_PER_PAGE = 100

_NUMBER = re.compile(r"\+?[0-9]{1,18}", re.ASCII)
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


@attrs.frozen
class Cursor:
    """The last item of a page."""

    name: str
    id: str = ""
    """Only where the next item has the same name; triggers of several functions may."""


def encode_cursor(cursor: Cursor) -> str:
    """Unpadded URL-safe base64 of the name as Fn has it, or of name, NUL and id."""
    text = f"{cursor.name}\0{cursor.id}" if cursor.id else cursor.name
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_cursor(text: str) -> Cursor:
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
    return Cursor(name, id)


def parse_per_page(text: str) -> int:
    """The ``per_page`` of a query: what is no number over 0 means 30, and 100 is the most."""
    number = int(text) if _NUMBER.fullmatch(text) else 0
    return min(number, MAX_PER_PAGE) if number > 0 else DEFAULT_PER_PAGE
