"""The garbage collector of a node."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from hostler.nodes.lifetime import YOUNG, settle_collector
settle_collector()
assert gc.isenabled()
assert gc.get_threshold()[0] == YOUNG
assert gc.get_freeze_count() > 10_000
import weakref
class Ring: ...
ring = Ring()
ring.self = ring
gone = weakref.ref(ring)
del ring
for number in range(2 * YOUNG):
    kept = [[]]
    kept[0].append(kept)
assert gone() is None
"""


def test_what_exists_is_left_alone_and_new_cycles_are_still_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
