"""CPU quantities as texts: ``"500m"`` milli-CPUs, ``"0.5"`` CPUs."""

from __future__ import annotations

import re
from decimal import Decimal

from hostler.errors import InvalidCPUs

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
