"""Public fakes and contract suites, for tests of hostler and of what you build on it.

* `check_driver` for a driver of your own
* `MemoryRunnerClient` and `memory_engagement_pair`: engagements without a wire
* the sim driver, `hostler.drivers.sim`, runs functions on virtual time
"""

from __future__ import annotations

from ._driver_suite import DRIVER_CHECKS, check_driver
from ._function import FunctionAnswer, FunctionBroke, ReadyWatch, call_function
from ._memory import (
    MemoryClientEngagement,
    MemoryServerEngagement,
    memory_engagement_pair,
)
from ._memory_client import MemoryRunnerClient
from ._sim_function import add_sim_function
from ._subject import ContractBroken, DriverSubject, OpenSubject

__all__ = [
    "DRIVER_CHECKS",
    "ContractBroken",
    "DriverSubject",
    "FunctionAnswer",
    "FunctionBroke",
    "MemoryClientEngagement",
    "MemoryRunnerClient",
    "MemoryServerEngagement",
    "OpenSubject",
    "ReadyWatch",
    "add_sim_function",
    "call_function",
    "check_driver",
    "memory_engagement_pair",
]
