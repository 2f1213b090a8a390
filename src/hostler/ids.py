"""Identifiers of calls, apps, functions, triggers, containers and requests.

The layout is that of Fn, which is a ULID's: 128 bits, printed as 26 characters of Crockford's
base 32, so that texts sort by time.

======  ==================  ==============================================
bits    field               meaning
======  ==================  ==============================================
48      ``time_ms``         Unix milliseconds
48      ``machine_id``      IPv4 address (32 bits) and listening port (16)
32      ``counter``         one more for each id of this machine
======  ==================  ==============================================

Two nodes may have the same machine id: private addresses repeat, in container networks above all.
Their ids are equal only if made in the same millisecond with the same counter, and each process
starts its counter at a random number: for two nodes that each make 1000 ids a second that is to be
expected about every 50 days. Nothing depends on it: no table is keyed by the id of a call, which
is for people and logs, and an engine refuses a second container of the same name.

ULID: https://github.com/ulid/spec; Crockford: https://www.crockford.com/base32.html
"""

from __future__ import annotations

import functools
import ipaddress
import secrets
import threading
import time

__all__ = [
    "IdGenerator",
    "format_id",
    "machine_id_of",
    "new_id",
    "set_machine_id",
]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_MACHINE_BITS = 48
_COUNTER_BITS = 32
_COUNTER_MASK = 2**_COUNTER_BITS - 1
_TIME_MASK = 2**48 - 1


def format_id(time_ms: int, machine_id: int, counter: int) -> str:
    """The id of three numbers. Raises `ValueError` if one does not fit its field."""
    if not (
        0 <= time_ms <= _TIME_MASK
        and 0 <= machine_id < 2**_MACHINE_BITS
        and 0 <= counter <= _COUNTER_MASK
    ):
        raise ValueError(f"out of range: {time_ms}, {machine_id}, {counter}")
    return _encode(time_ms, machine_id, counter)


def machine_id_of(address: str, port: int) -> int:
    """The machine id of a node that listens on this IPv4 address and port.

    Raises `ValueError` for anything else. Two nodes with the same id may make equal ids.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"not a port: {port}")
    return int(ipaddress.IPv4Address(address)) << 16 | port


class IdGenerator:
    """Makes ids that sort in the order in which they were made, also in one millisecond, and
    when the clock steps back. Safe to call from any thread."""

    def __init__(self, machine_id: int, *, counter: int = 0) -> None:
        """``counter`` is that of the first id. Raises `ValueError` if a part does not fit."""
        format_id(0, machine_id, counter)
        self._machine_id = machine_id
        self._next = counter
        self._time_ms = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<IdGenerator machine_id={self._machine_id:#x} next={self._next}>"

    @property
    def machine_id(self) -> int:
        """Of the ids to come. Setting it raises `ValueError` for more than 48 bits."""
        return self._machine_id

    @machine_id.setter
    def machine_id(self, machine_id: int) -> None:
        format_id(0, machine_id, 0)
        self._machine_id = machine_id

    def new(self) -> str:
        """The next id."""
        with self._lock:
            time_ms = time.time_ns() // 1_000_000
            if time_ms > self._time_ms:
                self._time_ms = time_ms
            else:
                time_ms = self._time_ms
            counter = self._next
            self._next = counter + 1 & _COUNTER_MASK
            if not self._next:  # the counter starts over: what follows must still sort behind
                self._time_ms += 1
        return _encode(time_ms, self._machine_id, counter)


def _encode(time_ms: int, machine_id: int, counter: int) -> str:
    # Fields and characters share some borders: 10 characters have the time's 50 bits, the next 10
    # the machine's 48 and the counter's first 2, the last 6 the rest. Of all but the last two of
    # the time and of the counter the next id has most often the same.
    return (
        f"{_pairs(time_ms >> 10, 4)}{_PAIRS[time_ms & 1023]}"
        f"{_pairs(machine_id << 22 | counter >> 10, 7)}{_PAIRS[counter & 1023]}"
    )


@functools.lru_cache(maxsize=16)
def _pairs(bits: int, count: int) -> str:
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(10 * count - 10, -1, -10)])


_process_ids = IdGenerator(secrets.randbits(_MACHINE_BITS), counter=secrets.randbits(_COUNTER_BITS))
"""The counter starts anywhere: private addresses are not everywhere unique."""


def set_machine_id(machine_id: int) -> None:
    """Make `new_id` use ``machine_id`` from now on; a node does so once it knows its address.

    Until then it is random, so that processes that serve nothing get different ids too.
    """
    _process_ids.machine_id = machine_id


def new_id() -> str:
    """An id from the process's generator."""
    return _process_ids.new()
