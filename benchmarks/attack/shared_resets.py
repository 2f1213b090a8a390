"""The same as rapid reset, on one stream that calls share (``EngageMany``), within its window."""

from __future__ import annotations

import attrs

from hostler.protocol import Data, TryCall
from hostler.wire.codec.fast import encode_data, encode_try
from hostler.wire.mux.envelope import encode
from tests.support.http2 import DATA, Peer, frame, message

from ._flood import flood
from ._row import Row

ABOUT = "begins 15 000 calls on one shared stream and resets each at once"
PATH = "/RunnerProtocol/EngageMany"
TOGETHER = 10
"""Calls in one message."""
_CANCEL = 8


def run(address: str, *, count: int = 15_000, seconds: float = 20.0) -> Row:
    """Attack the gRPC port of a runner."""
    name = "shared-resets"
    count //= TOGETHER
    row = flood(name, address, _Calls(), count=count, seconds=seconds, path=PATH)
    return attrs.evolve(row, sent=row.sent * TOGETHER)


class _Calls:
    def __init__(self) -> None:
        self._stream = self._call = 0
        self._frames = [
            encode_try(TryCall(models_call_json="{}", slot_hash_id="", extensions={})),
            encode_data(Data(b"", eof=True)),
        ]

    def __call__(self, peer: Peer) -> bytes:
        """Some calls that are given up as they begin."""
        parts = []
        for _ in range(TOGETHER):
            self._call += 1
            parts.append(encode(self._call, self._frames, "", 0, None, 0, 0))
            parts.append(encode(self._call, (), "", 0, None, _CANCEL, 0))
        batch = b"".join(parts)
        if self._stream:
            return frame(DATA, message(batch), stream=self._stream)
        data, self._stream = peer.begin(batch)
        return data
