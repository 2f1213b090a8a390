"""Public fakes and contract suites, for tests of hostler and of what you build on it.

* `check_driver`, `check_placer` and `check_keep_alive` for a driver, a placer and a keep-alive
  policy of your own
* `FakeRunner`, `FakePool` and `fake_call`: placing calls by a script
* `MemoryRunnerClient` and `memory_engagement_pair`: engagements without a wire
* the sim driver, `hostler.drivers.sim`, runs functions on virtual time

* ``contracts``: what contract suites have in common
* ``driver_contract``: the contract of `Driver`, as checks
* ``fakes``: fake runners, pools and calls on virtual time
* ``function``: calling a function's socket, and the contract suite's simulated function
* ``keep_alive_contract``: the contract of `KeepAlive`, as checks
* ``memory``: engagements and a runner client in memory, without a wire
* ``placer_contract``: the contract of `Placer`, as checks
"""

from __future__ import annotations

from .contracts import ContractBroken, DriverSubject, OpenSubject
from .driver_contract import DRIVER_CHECKS, check_driver
from .fakes import NACK, UNREACHABLE, FakeAttempt, FakePool, FakeRunner, fake_call
from .function import FunctionAnswer, ReadyWatch, ScriptBroke, add_sim_function, call_function
from .keep_alive_contract import KEEP_ALIVE_CHECKS, FakeContainer, check_keep_alive
from .memory import (
    MemoryClientEngagement,
    MemoryRunnerClient,
    MemoryServerEngagement,
    memory_engagement_pair,
)
from .placer_contract import PLACER_CHECKS, MakePlacer, check_placer

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
    "MakePlacer",
    "MemoryClientEngagement",
    "MemoryRunnerClient",
    "MemoryServerEngagement",
    "OpenSubject",
    "ReadyWatch",
    "ScriptBroke",
    "add_sim_function",
    "call_function",
    "check_driver",
    "check_keep_alive",
    "check_placer",
    "fake_call",
    "memory_engagement_pair",
]
