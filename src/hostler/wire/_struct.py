"""``google.protobuf.Struct`` and JSON text, by the protobuf JSON mapping.

betterproto's own JSON mapping turns a Struct into its wire shape (``{"fields": ...}``), so it is
done here. A Struct holds every number as a double; whole ones are written without a fraction.
"""

from __future__ import annotations

import math
from typing import Any

import betterproto
import betterproto.lib.google.protobuf as google
import msgspec

from ._varint import read_varint

_WHOLE = 2**53
"""Below it every whole double is exact."""


def json_to_struct(text: str) -> google.Struct:
    """Raises ValueError if ``text`` is not a JSON object."""
    try:
        return _struct(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the payload is not a JSON object: {error}") from error


def _struct(value: dict[str, Any]) -> google.Struct:
    return google.Struct(fields={key: _value(item) for key, item in value.items()})


def _value(item: Any) -> google.Value:
    if item is None:
        return google.Value(null_value=google.NullValue(0))
    if isinstance(item, bool):
        return google.Value(bool_value=item)
    if isinstance(item, (int, float)):
        return google.Value(number_value=float(item))
    if isinstance(item, str):
        return google.Value(string_value=item)
    if isinstance(item, list):
        return google.Value(list_value=google.ListValue(values=[_value(i) for i in item]))
    return google.Value(struct_value=_struct(item))


def struct_to_json(struct: google.Struct) -> str:
    """Compact JSON. NaN and infinities, which JSON lacks, become ``null``."""
    return msgspec.json.encode(_plain_struct(struct)).decode()


def _plain_struct(struct: google.Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: google.Value) -> Any:
    kind: str
    item: Any
    kind, item = betterproto.which_one_of(value, "kind")
    if kind == "number_value":
        whole = math.isfinite(item) and item.is_integer() and abs(item) < _WHOLE
        return int(item) if whole else item
    if kind == "list_value":
        return [_plain(i) for i in item.values]
    if kind == "struct_value":
        return _plain_struct(item)
    return item if kind in ("bool_value", "string_value") else None


_MAX_STRUCT_DEPTH = 400
"""Nested messages; one level of JSON takes up to three. Google's decoders stop at 100."""
# (message, field) -> message in that field, for the four messages that make up a Struct
_STRUCT_FIELDS = {
    ("struct", 1): "entry",
    ("entry", 2): "value",
    ("value", 5): "struct",
    ("value", 6): "list",
    ("list", 1): "value",
}
_FIXED_SIZES = {1: 8, 5: 4}


def check_struct_depth(data: bytes) -> None:
    """Refuse what would overflow the C stack of the compiled codec, which recurses unchecked.

    Raises ValueError.
    """
    try:
        _walk(data)
    except IndexError:
        raise ValueError("it ends within a field") from None


def _walk(data: bytes) -> None:
    stack = [("struct", len(data))]
    at = 0
    while stack:
        kind, end = stack[-1]
        if at >= end:
            stack.pop()
            continue
        key, at = read_varint(data, at)
        child = _STRUCT_FIELDS.get((kind, key >> 3)) if key & 7 == 2 else None
        if key & 7 == 0:
            _, at = read_varint(data, at)
        elif key & 7 == 2:
            size, at = read_varint(data, at)
            if child:
                stack.append((child, at + size))
            else:
                at += size
        elif key & 7 in _FIXED_SIZES:
            at += _FIXED_SIZES[key & 7]
        else:
            raise ValueError(f"wire type {key & 7}")
        if len(stack) > _MAX_STRUCT_DEPTH:
            raise ValueError("it is nested too deeply")
