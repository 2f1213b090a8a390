"""A line as who asks ``/logs`` gets it."""

from __future__ import annotations

import msgspec

from ._ring import TailLine


class LineDocument(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One line. Bytes of it that are no UTF-8 are replaced."""

    at: float
    """Seconds since 1970."""
    app_id: str
    fn_id: str
    call_id: str
    """The call that the container worked on, or worked on last; "" = before the first one."""
    container_id: str
    stream: str
    """``stdout`` or ``stderr``."""
    line: str


class LostDocument(msgspec.Struct, frozen=True, gc=False):
    """In the place of lines, of whatever function, that went before the reader took them."""

    lost: int


def document_of(line: TailLine) -> LineDocument:
    source = line.source
    return LineDocument(
        at=round(line.at, 3),
        app_id=source.app_id,
        fn_id=source.fn_id,
        call_id=source.call_id,
        container_id=source.container_id,
        stream="stderr" if line.is_stderr else "stdout",
        line=line.data.decode(errors="replace").removesuffix("\r"),
    )


def encoded(lost: int, lines: list[LineDocument]) -> bytes:
    """Newline-delimited JSON."""
    documents: list[LineDocument | LostDocument] = [*lines]
    if lost:
        documents.insert(0, LostDocument(lost))
    return b"".join(msgspec.json.encode(document) + b"\n" for document in documents)
