"""A call as the JSON document in `TryCall.models_call_json`, read as Go reads it.

Names, units and order are Fn's. A document with exact names, no nulls, all fields that are never
left out and no stats takes the fast path: one pass of msgspec. `decode_lenient` reads all other
documents field by field, as Go's decoder would: names match in any case, unknown names are ignored,
``null`` leaves a value unset. Its refusals name the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import attrs
import msgspec

from .dates import format_date, parse_date
from .errors import InvalidCPUs, InvalidJSON
from .models import Call, CallType, StatSample

__all__ = [
    "compact",
    "decode_call",
    "encode_call",
    "format_cpus",
    "parse_cpus",
]

MAX_MILLI_CPUS = 1_024_000

_MILLI = re.compile(r"[0-9]{1,20}", re.ASCII)

_CORES = re.compile(
    r"[+-]?([0-9]{1,64}\.?[0-9]{0,64}|\.[0-9]{1,64})([eE][+-]?[0-9]{1,3})?", re.ASCII
)
"""The bounds keep hostile texts cheap; no quantity in range needs more."""


def parse_cpus(text: str) -> int:
    """Milli-CPUs of ``"<n>m"`` or of a number of CPUs, of which digits behind the third are cut
    off; "" is 0. Raises `InvalidCPUs` for other forms, and outside of 0 to 1 024 000.
    """
    text = text.strip()
    if not text:
        return 0
    if text.endswith("m"):
        if not _MILLI.fullmatch(text[:-1]):
            raise InvalidCPUs
        milli = Decimal(text[:-1])
    else:
        if not _CORES.fullmatch(text):
            raise InvalidCPUs
        milli = Decimal(text) * 1000
    if not 0 <= milli <= MAX_MILLI_CPUS:
        raise InvalidCPUs
    return int(milli)


def format_cpus(milli_cpus: int) -> str:
    """The form that travels between nodes."""
    return f"{milli_cpus}m"


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


class _Document(
    msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """In the order of Fn; a field without a default is never left out."""

    id: str
    status: str
    image: str = ""
    delay: Int32 = 0
    type: CallType = ""
    payload: str = ""
    url: str = ""
    method: str = ""
    timeout: Int32 = 0
    idle_timeout: Int32 = 0
    tmpfs_size: Uint32 = 0
    memory: Size = 0
    cpus: str = ""
    config: dict[str, str] = {}
    annotations: dict[str, msgspec.Raw] = {}
    headers: dict[str, list[str]] = {}
    syslog_url: str = ""
    completed_at: str
    created_at: str
    started_at: str
    execution_duration: Int64 = 0
    stats: list[StatSample] = []
    error: str = ""
    app_id: str
    app_name: str
    trigger_id: str
    fn_id: str


def _by_place(document: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same, made of its values in the order of the fields: to look up so many names takes
    longer than to write the document."""

    def default(field: msgspec.structs.FieldInfo) -> object:
        if field.required:
            return msgspec.UNSET  # which no value is
        return field.default_factory() if field.default is msgspec.NODEFAULT else field.default

    fields = [
        (field.name, field.type, default(field)) for field in msgspec.structs.fields(document)
    ]
    return msgspec.defstruct(document.__name__, fields, omit_defaults=True, gc=False)


_Written = _by_place(_Document)

_decoder = msgspec.json.Decoder(_Document)

_encoder = msgspec.json.Encoder(order="deterministic")  # maps by key, as Go writes them


def encode_call(call: Call) -> str:
    """The document of ``call``. Raises `ValueError` for a date without a zone, and for a text
    with half of a surrogate pair, which is no Unicode."""
    document = _Written(
        call.id,
        call.status,
        call.image,
        call.delay,
        call.type,
        call.payload,
        call.url,
        call.method,
        call.timeout,
        call.idle_timeout,
        call.tmpfs_size,
        call.memory,
        format_cpus(call.cpus) if call.cpus else "",
        call.config,
        call.annotations,
        call.headers,
        call.syslog_url,
        format_date(call.completed_at),
        format_date(call.created_at),
        format_date(call.started_at),
        call.execution_duration_ns,
        call.stats,
        call.error,
        call.app_id,
        call.app_name,
        call.trigger_id,
        call.fn_id,
    )
    return _encoder.encode(document).decode()


def decode_call(text: str) -> Call:
    """The call of a document from any peer.

    Raises `InvalidJSON`, whose message names the field, and `InvalidCPUs`. Header names are
    taken as they are.
    """
    return _decode_fast(text) or decode_lenient(text)


def _decode_fast(text: str) -> Call | None:
    """``None`` for all that is not just as a node writes it, be it fine or not."""
    try:
        document = _decoder.decode(text)
        if document.stats or document.memory > UINT64_MAX:
            return None
        return _to_call(document)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _to_call(document: _Document) -> Call:
    # By place, as they are written.
    return Call(
        document.id,
        document.status,
        document.image,
        document.delay,
        document.type,
        document.payload,
        document.url,
        document.method,
        document.timeout,
        document.idle_timeout,
        document.tmpfs_size,
        document.memory,
        parse_cpus(document.cpus),
        document.config,
        {key: compact(raw) for key, raw in document.annotations.items() if not is_null(raw)},
        document.headers,
        document.syslog_url,
        parse_date(document.completed_at),
        parse_date(document.created_at),
        parse_date(document.started_at),
        document.execution_duration,
        document.stats,
        document.error,
        document.app_id,
        document.app_name,
        document.trigger_id,
        document.fn_id,
    )


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
