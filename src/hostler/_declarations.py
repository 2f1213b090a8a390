"""Checked access to one entry of a declaration file, with errors that say where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .errors import APIError, ConfigError
from .rules import (
    MAX_KEY_BYTES,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    check_syslog_url,
    is_annotation_key,
    is_path_segment,
    is_word,
)


class Section:
    """One mapping of the file. Every method raises `ConfigError` with the entry's place."""

    def __init__(self, place: str, value: object) -> None:
        self.place = place
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place}: must be a mapping of fields, not {_kind(value)}")
        self._fields: Mapping[Any, Any] = value

    def fail(self, field: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.place}: {field}: {problem}")

    def only(self, *known: str) -> None:
        """No other fields may be there."""
        for field in self._fields:
            if field not in known:
                raise self.fail(str(field), f"unknown field; known are {', '.join(known)}")

    def unique(self, value: str, others: Iterable[str], field: str) -> None:
        if value in others:
            raise self.fail(field, f"{value!r} is used twice")

    def entries(self, field: str) -> Iterator[Section]:
        """The entries of a list field; a missing one is empty."""
        value = self._fields.get(field, [])
        if not isinstance(value, list):
            raise self.fail(field, f"must be a list, not {_kind(value)}")
        for number, item in enumerate(value):
            place = f"{self.place}: {field}[{number}]"
            name = item.get("name") if isinstance(item, Mapping) else None
            yield Section(f"{place} {name!r}" if isinstance(name, str) else place, item)

    def text(self, field: str, *, required: bool = False) -> str:
        value = self._fields.get(field, "")
        if not isinstance(value, str):
            raise self.fail(field, f"must be a string, not {_kind(value)}")
        if required and not value:
            raise self.fail(field, "is missing")
        return value

    def name(self, what: str, *, app: bool = False) -> str:
        name = self.text("name", required=True)
        if len(name.encode()) > MAX_NAME_BYTES:
            raise self.fail("name", f"the name of {what} has {MAX_NAME_BYTES} bytes or fewer")
        if app and not is_word(name):
            raise self.fail(
                "name", f"{name!r}: the name of {what} is made of letters, digits, _ and -"
            )
        self._check_path(name, "name")
        return name

    def identifier(self) -> str:
        """The ``id``, or "" if none is given."""
        value = self.text("id")
        self._check_path(value, "id")
        return value

    def source(self) -> str:
        """A path below ``/t/<app>``, as it is after URL decoding."""
        source = self.text("source", required=True)
        if not source.startswith("/"):
            raise self.fail("source", f"{source!r} must begin with a slash")
        if "\0" in source:
            raise self.fail("source", f"{source!r} has a character that no path may have")
        return source

    def _check_path(self, value: str, field: str) -> None:
        # An app's name may have letters beyond ASCII, which clients escape.
        if not is_path_segment("".join(char for char in value if char.isascii())):
            raise self.fail(field, f"{value!r} cannot stand in a URL path as it is")

    def number(self, field: str, default: int, maximum: int, unit: str) -> int:
        value = self._fields.get(field, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(field, f"must be a whole number of {unit}, not {_kind(value)}")
        if not 1 <= value <= maximum:
            raise self.fail(field, f"{value} is out of range, 1 to {maximum} {unit}")
        return value

    def strings(self, field: str) -> dict[str, str]:
        mapping = self._mapping(field)
        for key, value in mapping.items():
            if not isinstance(value, str):
                raise self.fail(
                    f"{field}.{key}", f"must be a string, not {_kind(value)}; put it in quotes"
                )
        return dict(mapping)

    def annotations(self) -> dict[str, msgspec.Raw]:
        mapping = self._mapping("annotations")
        if len(mapping) > MAX_KEYS:
            raise self.fail("annotations", f"{len(mapping)} keys, at most {MAX_KEYS}")
        return {key: self._annotation(key, value) for key, value in mapping.items()}

    def _annotation(self, key: str, value: object) -> msgspec.Raw:
        field = f"annotations.{key}"
        if len(key) > MAX_KEY_BYTES or not is_annotation_key(key):
            raise self.fail(
                field,
                f"a key is 1 to {MAX_KEY_BYTES} printable ASCII characters, no space",
            )
        if value is None or value == "":
            raise self.fail(field, "a value may not be empty or null")
        try:
            raw = msgspec.json.encode(value)
        except (TypeError, ValueError) as error:
            raise self.fail(field, f"not JSON: {error}") from error
        if len(raw) > MAX_VALUE_BYTES:
            raise self.fail(field, f"{len(raw)} bytes as JSON, at most {MAX_VALUE_BYTES}")
        return msgspec.Raw(raw)

    def syslog_url(self) -> str:
        url = self.text("syslog_url")
        try:
            check_syslog_url(url)
        except APIError as error:
            raise self.fail("syslog_url", error.message) from error
        return url

    def _mapping(self, field: str) -> dict[str, Any]:
        value = self._fields.get(field, {})
        if not isinstance(value, Mapping):
            raise self.fail(field, f"must be a mapping, not {_kind(value)}")
        for key in value:
            if not isinstance(key, str):
                raise self.fail(field, f"the key {key!r} must be a string; put it in quotes")
        return dict(value)


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "nothing"
    return names.get(type(value), f"{value!r}")
