"""Metrics of processes beside the node: of the engine, above all."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

COMM_BYTES = 15
"""As much of a program's name as the kernel keeps."""
SEARCH_SECONDS = 10.0
"""A process that is not there is looked for this often at most: it takes a look at all that are."""
_NO_PROCESS = 0


def watch_processes(
    names: Iterable[str], registry: CollectorRegistry, proc: Path = Path("/proc")
) -> None:
    """Add the metrics ``<name>_process_...`` for the first process of each name.

    Names that differ only in what a metric's name can't have are one: the first.

    Without a process, or on a system without ``/proc``, there are none; one that ends and is
    started again is found again. What the node may not see of another user's is left out.
    """
    by_namespace: dict[str, str] = {}
    for name in names:
        by_namespace.setdefault(re.sub(r"[^a-zA-Z0-9_]", "_", name), name)
    for namespace, name in by_namespace.items():
        ProcessCollector(namespace, _Finder(name, proc).pid, str(proc), registry)


class _Finder:
    """Knows the process of a program's name."""

    def __init__(self, name: str, proc: Path) -> None:
        self._name = name
        self._proc = proc
        self._found = _NO_PROCESS
        self._searched_at = -math.inf

    def pid(self) -> int:
        """0 = there is none."""
        if self._found and self._is_it(self._found):
            return self._found
        now = time.monotonic()
        if self._found or now - self._searched_at >= SEARCH_SECONDS:
            self._searched_at = now
            self._found = next(filter(self._is_it, self._pids()), _NO_PROCESS)
        return self._found

    def _pids(self) -> list[int]:
        try:
            return sorted(int(path.name) for path in self._proc.iterdir() if path.name.isdigit())
        except OSError:
            return []

    def _is_it(self, pid: int) -> bool:
        folder = self._proc / str(pid)
        try:
            comm = (folder / "comm").read_bytes().rstrip(b"\n")
            if comm != self._name.encode()[:COMM_BYTES]:
                return False
            program = (folder / "cmdline").read_bytes().partition(b"\0")[0]
        except OSError:  # it has ended
            return False
        return len(comm) < COMM_BYTES or program.rpartition(b"/")[2] == self._name.encode()
