"""Public fakes and contract suites, for tests of hostler and of what you build on it.

* `check_driver`, `check_placer` and `check_keep_alive` for a driver, a placer and a keep-alive
  policy of your own
* `FakeRunner`, `FakePool` and `fake_call`: placing calls by a script
* `MemoryRunnerClient` and `memory_engagement_pair`: engagements without a wire
* the sim driver, `hostler.drivers.sim`, runs functions on virtual time
"""

from __future__ import annotations

from ._driver_suite import DRIVER_CHECKS, check_driver
from ._fakes import NACK, UNREACHABLE, FakeAttempt, FakePool, FakeRunner, fake_call
from ._function import FunctionAnswer, FunctionBroke, ReadyWatch, call_function
from ._keep_alive_suite import KEEP_ALIVE_CHECKS, FakeContainer, check_keep_alive
from ._memory import (
    MemoryClientEngagement,
    MemoryServerEngagement,
    memory_engagement_pair,
)
from ._memory_client import MemoryRunnerClient
from ._placer_suite import PLACER_CHECKS, MakePlacer, check_placer
from ._sim_function import add_sim_function
from ._subject import ContractBroken, DriverSubject, OpenSubject

__all__ = [
    "DRIVER_CHECKS",
    "KEEP_ALIVE_CHECKS",
    "NACK",
    "PLACER_CHECKS",
    "UNREACHABLE",
    "ContractBroken",
    "DriverSubject",
    "FakeAttempt",
    "FakeContainer",
    "FakePool",
    "FakeRunner",
    "FunctionAnswer",
    "FunctionBroke",
    "MakePlacer",
    "MemoryClientEngagement",
    "MemoryRunnerClient",
    "MemoryServerEngagement",
    "OpenSubject",
    "ReadyWatch",
    "add_sim_function",
    "call_function",
    "check_driver",
    "check_keep_alive",
    "check_placer",
    "fake_call",
    "memory_engagement_pair",
]
