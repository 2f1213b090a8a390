"""Functions as local processes: the function contract without a container engine.

**Does not isolate**; see `open_process_driver`. One helper process, the warden, is the parent of
all functions: it starts them quickly however big hostler is, and ends them if hostler is killed.
"""

from __future__ import annotations

from ._config import ProcessConfig
from ._cookie import ProcessContainer, ProcessCookie, ProcessOptions
from ._driver import ProcessDriver, ProcessStatistics, open_process_driver
from ._warden_client import WardenLost

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
