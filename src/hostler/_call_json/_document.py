"""The document as a node writes it, read and written in one pass.

Names, units and order are Fn's. A document with exact names, no nulls, all of the fields that
are never left out and no stats yet takes the fast path: one pass of msgspec. What else Go's
decoder would take (names in other case, nulls, missing and unknown names) is decoded field by
field in `_lenient`, which also finds out what is wrong with a bad document.
"""

from __future__ import annotations

import msgspec

from hostler.dates import format_date, parse_date
from hostler.models import Call, CallType, StatSample

from ._cpus import format_cpus, parse_cpus
from ._lenient import UINT64_MAX, Int32, Int64, Size, Uint32, decode_lenient
from ._raw import compact, is_null


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
