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
