"""Documents of requests, read by the rules of Go's decoder as far as Fn's clients rely on them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from hostler.errors import InvalidJSON

_T = TypeVar("_T")
_WHOLE = re.compile(rb"(-?[0-9]{1,20})\.0+")
_BAD = (msgspec.DecodeError, UnicodeError, RecursionError)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(body: bytes, type_: type[_T]) -> _T:
    """``body`` as a document of ``type_``.

    Field names match in any case, unknown ones are skipped, ``null`` leaves a field as if it
    was not there. Anything behind the document is an error (Go's decoder skips it).

    Raises `InvalidJSON`.
    """
    try:
        fields = {name.lower(): raw for name, raw in _FIELDS.decode(body).items()}
        given = {name: _plain(raw) for name, raw in fields.items() if bytes(raw) != b"null"}
        return msgspec.json.decode(msgspec.json.encode(given), type=type_)
    except _BAD as error:
        raise InvalidJSON from error


def _plain(raw: msgspec.Raw) -> msgspec.Raw:
    """``128.0`` is the number 128, and as whole."""
    if match := _WHOLE.fullmatch(raw):
        return msgspec.Raw(match[1])
    return raw


def check_annotations_json(values: Iterable[msgspec.Raw]) -> None:
    """Raises `InvalidJSON` for what is no JSON: the decoder only skips over raw parts."""
    try:
        for value in values:
            msgspec.json.decode(value)
    except _BAD as error:
        raise InvalidJSON from error
