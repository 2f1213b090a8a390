"""Processes that stand still for a while, as one does that a busy machine has forgotten."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

LIMIT = 60


def stop_process(pid: int) -> None:
    """Until it gets SIGCONT. All of its threads stand still when this returns: with the signal
    alone some of them go on until another one has taken notice of it."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + LIMIT
    while set(_states(pid)) - set("TtZX"):
        assert time.monotonic() < end, f"process {pid} does not stop: {_states(pid)}"
        time.sleep(0.001)


def _states(pid: int) -> list[str]:
    """Of its threads."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(stat.read_text().rpartition(") ")[2][0])
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return states
