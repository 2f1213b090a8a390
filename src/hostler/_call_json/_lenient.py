"""Call documents that are not as a node writes them: taken as Go's decoder would, or refused.

Names match in any case, unknown ones are ignored, ``null`` leaves a value unset. A refusal names
the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import attrs
import msgspec

from hostler.dates import parse_date
from hostler.errors import InvalidJSON
from hostler.models import Call, CallType, StatSample

from ._cpus import parse_cpus
from ._raw import compact, is_null

INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
Size = Annotated[int, msgspec.Meta(ge=0)]
"""A uint64: msgspec's bounds end at int64, so the upper one must be checked apart."""


@attrs.frozen
class _Field:
    """How the value of one name is read, and where in a `Call` it goes."""

    attribute: str
    decoder: msgspec.json.Decoder[Any]
    convert: Callable[[Any], Any] | None = None
    """Raises `ValueError` for a value of the right type that can't be taken."""

    def read(self, path: str, raw: msgspec.Raw) -> Any:
        try:
            value = self.decoder.decode(raw)
            return value if self.convert is None else self.convert(value)
        except (msgspec.DecodeError, ValueError) as error:
            raise _invalid(f"{path}: {error}") from error
        except RecursionError as error:
            raise _invalid(f"{path}: it is nested too deeply") from error


def decode_lenient(text: str) -> Call:
    """The call of a document. Raises `InvalidJSON` with the field's name and what is wrong with
    it, or `InvalidCPUs`."""
    try:
        members = _OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _invalid(str(error)) from error
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    return Call(**_read_members(members, _CALL_FIELDS))


def _invalid(what: str) -> InvalidJSON:
    return InvalidJSON(message=f"Invalid JSON: {what}")


def _read_members(
    members: Mapping[str, msgspec.Raw], fields: Mapping[str, _Field], prefix: str = ""
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, raw in members.items():
        name = key if key in fields else key.casefold()
        field = fields.get(name)
        if field is not None and not is_null(raw):
            values[field.attribute] = field.read(prefix + name, raw)
    return values


def _fill_texts(values: dict[str, str | None]) -> dict[str, str]:
    return {key: value or "" for key, value in values.items()}


def _fill_lists(values: dict[str, list[str | None] | None]) -> dict[str, list[str]]:
    return {key: [item or "" for item in items or ()] for key, items in values.items()}


def _compact_all(values: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {key: compact(raw) for key, raw in values.items() if not is_null(raw)}


def _fit_uint64(value: int) -> int:
    if value > UINT64_MAX:
        raise ValueError("Expected `int` <= 18446744073709551615")
    return value


def _fit_all_uint64(values: dict[str, int | None]) -> dict[str, int]:
    return {key: _fit_uint64(value or 0) for key, value in values.items()}


def _date_text(text: str) -> str:
    parse_date(text)
    return text


def _read_stats(samples: list[dict[str, msgspec.Raw] | None]) -> list[StatSample]:
    read = []
    for index, sample in enumerate(samples):
        values = _read_members(sample or {}, _STAT_FIELDS, f"stats[{index}].")
        read.append(StatSample(values.get("timestamp", ""), values.get("metrics", {})))
    return read


def _field(attribute: str, kind: object, convert: Callable[[Any], Any] | None = None) -> _Field:
    return _Field(attribute, msgspec.json.Decoder(kind), convert)


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

_STAT_FIELDS: dict[str, _Field] = {
    "timestamp": _field("timestamp", str, _date_text),
    "metrics": _field("metrics", dict[str, Size | None], _fit_all_uint64),
}

_CALL_FIELDS: dict[str, _Field] = {
    **{
        name: _field(name, str)
        for name in (
            "id",
            "status",
            "image",
            "payload",
            "url",
            "method",
            "syslog_url",
            "error",
            "app_id",
            "app_name",
            "trigger_id",
            "fn_id",
        )
    },
    **{name: _field(name, Int32) for name in ("delay", "timeout", "idle_timeout")},
    **{
        name: _field(name, str, parse_date) for name in ("completed_at", "created_at", "started_at")
    },
    "type": _field("type", CallType),
    "tmpfs_size": _field("tmpfs_size", Uint32),
    "memory": _field("memory", Size, _fit_uint64),
    "cpus": _field("cpus", str, parse_cpus),
    "config": _field("config", dict[str, str | None], _fill_texts),
    "annotations": _field("annotations", dict[str, msgspec.Raw], _compact_all),
    "headers": _field("headers", dict[str, list[str | None] | None], _fill_lists),
    "execution_duration": _field("execution_duration_ns", Int64),
    "stats": _field("stats", list[dict[str, msgspec.Raw] | None], _read_stats),
}
