"""How the memory of a process develops while it does the same thing again and again."""

from __future__ import annotations

import gc
import itertools
import math
import os
import statistics
import sys
from collections.abc import Sequence

import attrs

from ._measure import Metrics
from ._usage import usage_of

WARM_UP = 0.25
"""Part of the samples that does not count for the trend: until then caches fill."""


@attrs.define
class MemoryLog:
    """Samples of this process. ``resident`` is in KB. ``blocks`` are Python's small objects and the
    parts of bigger ones: they grow with a leak, but not when the heap is cut up differently."""

    done: list[float] = attrs.Factory(list)
    resident: list[float] = attrs.Factory(list)
    blocks: list[float] = attrs.Factory(list)

    def sample(self, done: int, own: int = 0) -> None:
        """Take one, ``done`` operations after the start; ``own`` blocks are what the benchmark
        itself has kept of them. Takes tens of milliseconds."""
        gc.collect()
        self.done.append(done)
        self.resident.append(usage_of([os.getpid()]).resident_mb * 1024)
        self.blocks.append(sys.getallocatedblocks() - own)

    def metrics(self) -> Metrics:
        """Slopes are per 1 000 calls, after the warm-up; see `trend`."""
        warm = int(len(self.done) * WARM_UP)
        thousands = [done / 1000 for done in self.done[warm:]]
        resident, resident_error = trend(thousands, self.resident[warm:])
        blocks, blocks_error = trend(thousands, self.blocks[warm:])
        return {
            "resident_kb_first": self.resident[0],
            "resident_kb_warm": self.resident[warm],
            "resident_kb_last": self.resident[-1],
            "resident_kb_per_1000_calls": resident,
            "resident_kb_per_1000_calls_error": resident_error,
            "python_blocks_per_1000_calls": blocks,
            "python_blocks_per_1000_calls_error": blocks_error,
        }


def trend(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The slope of ``y`` over ``x`` by least squares, and twice its standard error.

    Samples of memory depend on the ones before: it grows in steps, and stays. So the error is that
    of as many independent samples as these are worth by the correlation of neighbours (B. D.
    Santer et al., 2000, doi:10.1029/1999JD901105).
    """
    slope, intercept = statistics.linear_regression(x, y)
    rest = [b - intercept - slope * a for a, b in zip(x, y, strict=True)]
    squares = sum(r * r for r in rest)
    if not squares:
        return slope, 0.0
    neighbours = sum(a * b for a, b in itertools.pairwise(rest)) / squares
    worth = len(rest) * (1 - neighbours) / (1 + neighbours) if neighbours > 0 else len(rest)
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    return slope, 2 * math.sqrt(squares / max(1.0, worth - 2) / spread)
