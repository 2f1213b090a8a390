"""Functions as local processes: the function contract without a container engine.

**Does not isolate**; see `open_process_driver`. One helper process, the warden, is the parent of
all functions: it starts them quickly however big hostler is, and ends them if hostler is killed.

* ``driver``: process driver, its cookies, containers and output
* ``warden``: the warden: a small program, parent of all function processes (imports nothing of
  hostler)
* ``warden_client``: starting the warden and talking to it
"""

from __future__ import annotations

from .driver import (
    ProcessConfig,
    ProcessContainer,
    ProcessCookie,
    ProcessDriver,
    ProcessStatistics,
    open_process_driver,
)
from .warden_client import ProcessOptions, WardenLost

__all__ = [
    "ProcessConfig",
    "ProcessContainer",
    "ProcessCookie",
    "ProcessDriver",
    "ProcessOptions",
    "ProcessStatistics",
    "WardenLost",
    "open_process_driver",
]
