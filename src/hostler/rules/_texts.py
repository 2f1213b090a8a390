"""Names and other texts."""

from __future__ import annotations

import string
import unicodedata

from .errors import InvalidText

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
