"""The placer that keeps each function's calls together."""

from __future__ import annotations

from ..abc import RunnerCall
from ..hashing import fn_hash, jump_hash
from ._ring_placer import RingPlacer


class ConsistentHashPlacer(RingPlacer):
    """Starts each sweep at the function's own runner, so that its containers stay hot.

    The runner follows from the function's id by SipHash and jump consistent hash, as
    `hostler.hashing` describes: one more runner at the end of the list moves few functions.
    """

    def start(self, call: RunnerCall, count: int) -> int:
        return jump_hash(fn_hash(call.model.fn_id), count)
