"""Ids read back, and functions found by their names."""

from __future__ import annotations

from typing import NamedTuple

from hostler.functions import FunctionTable
from hostler.models import Fn

ID_LENGTH = 26
MAX_ID = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
"""128 bits are not quite 26 characters: the first one is at most 7."""
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class IdParts(NamedTuple):
    """What an id is made of: Unix milliseconds, and two numbers."""

    time_ms: int
    machine_id: int
    counter: int


def parse_id(text: str) -> IdParts:
    """Read an id back. Raises `ValueError` if it is not one (lower case is not)."""
    if len(text) != ID_LENGTH or text > MAX_ID or not set(text) <= set(ALPHABET):
        raise ValueError(f"not an id: {text!r}")
    number = 0
    for char in text:
        number = number << 5 | ALPHABET.index(char)
    return IdParts(number >> 80, number >> 32 & 2**48 - 1, number & 2**32 - 1)


def fn_by_name(table: FunctionTable, app_name: str, fn_name: str) -> Fn:
    """The function of the app; there is exactly one."""
    [found] = [
        fn
        for fn in table.fns.values()
        if fn.name == fn_name and table.apps[fn.app_id].name == app_name
    ]
    return found
