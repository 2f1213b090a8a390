"""Python's cyclic garbage collector, set up for a process that serves calls."""

from __future__ import annotations

import gc

YOUNG = 20_000
"""Objects that may be made before the young ones are looked at. A call leaves few cycles behind,
Python's own number (700) looks after every second call."""


def settle_collector() -> None:
    """Take what exists now, modules and configuration, out of all later collections.

    A full collection of a fresh node takes tens of milliseconds, in which no call goes on, and
    finds nothing. To be called once the node is ready.
    """
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG, middle, old)
