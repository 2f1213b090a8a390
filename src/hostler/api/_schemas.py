"""What the API's description promises about the values that clients send.

A value inside these bounds is valid. Some outside are valid too, where the bound can't be
written as a schema: names may have letters beyond ASCII, for example.
"""

from __future__ import annotations

from typing import Any

from msgspec import Meta

from hostler.rules import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_SOURCE_BYTES,
    MAX_TEXT_BYTES,
    SHAPES,
    TRIGGER_TYPES,
)


def schema(text: str, **extra: Any) -> Meta:
    """A description, and bounds that the decoder does not look at."""
    return Meta(description=text, extra_json_schema=extra)


def _name(text: str, pattern: str) -> Meta:
    return schema(text, minLength=1, maxLength=MAX_NAME_BYTES, pattern=pattern)


_LETTERS = "Letters, digits, `_` and `-`, also letters beyond ASCII; at most 255 bytes of UTF-8."
_UNSET_DATE = "0001-01-01T00:00:00.000Z"

DATE = f"RFC 3339 with milliseconds, set by the server; `{_UNSET_DATE}` = unset."
APP_NAME = _name(f"{_LETTERS} Can't be changed.", "^[A-Za-z0-9_-]+$")
TRIGGER_NAME = _name(_LETTERS, "^[A-Za-z0-9_-]+$")
FN_NAME = _name(
    "What needs no escape in a path of a URL. Can't be changed.", r"^[A-Za-z0-9_.~$&+=:@-]+$"
)
MEMORY = schema("MB (2**20 bytes), 0 = the default, 128.", format="int64", minimum=0)
TIMEOUT = schema("Seconds that a call may run, 0 = the default, 30.", format="int32", minimum=0)
IDLE_TIMEOUT = schema(
    "Seconds that a hot container may idle, 0 = the default, 30.", format="int32", minimum=0
)
IMAGE = schema("Reference of the image.", minLength=1, maxLength=MAX_TEXT_BYTES, pattern="^[!-~]+$")
IMAGE_CHANGE = schema(
    'Reference of the image; "" changes nothing.', maxLength=MAX_TEXT_BYTES, pattern="^[!-~]*$"
)
SHAPE = schema("Processors that the app's functions are for.", enum=list(SHAPES))
SYSLOG_URL = schema(
    'One URL that the output of the functions goes to, "" = none. Its scheme is one of `udp`, '
    "`tcp`, `tcp+tls`, `unix` and `unixgram`.",
    maxLength=MAX_TEXT_BYTES,
    pattern=(
        r"^((udp|tcp|tcp\+tls)://[a-z][a-z0-9.-]*(:[1-9][0-9]{0,3})?"
        r"|(unix|unixgram):///[A-Za-z0-9_./-]+)?$"
    ),
)
TRIGGER_TYPE = schema("Only `http`.", enum=list(TRIGGER_TYPES))
SOURCE = schema(
    "Path below `/t/{app name}`, with its leading slash.",
    maxLength=MAX_SOURCE_BYTES,
    pattern="^/[!-~]*$",
)
_KEYS: dict[str, Any] = {
    "maxProperties": MAX_KEYS,
    "propertyNames": {"pattern": f"^[!-~]{{1,{MAX_KEY_BYTES}}}$"},
}
_VALUES = "Each value has at most 512 bytes as compact JSON."
NEW_ANNOTATIONS = schema(f'Any JSON but null and "". {_VALUES}', **_KEYS)
NEW_ANNOTATION = schema("A value.", **{"not": {"enum": [None, ""]}})
ANNOTATION_CHANGES = schema(
    f'Merged key by key; "" and null remove a key. {_VALUES} The endpoints that the server adds '
    "to what is read are skipped.",
    **_KEYS,
)
