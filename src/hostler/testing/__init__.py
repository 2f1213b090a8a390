"""Public fakes and contract suites, for tests of hostler and of what you build on it.

* `check_driver`, `check_placer`, `check_pool`, `check_runner`, `check_datastore` and
  `check_keep_alive` for a part of your own
* `FakeRunner`, `FakePool` and `fake_call`: placing calls by a script
* `MemoryRunnerClient` and `memory_engagement_pair`: engagements without a wire
* the sim driver, `hostler.drivers.sim`, runs functions on virtual time

* ``contracts``: what contract suites have in common
* ``datastore_contract``: the contract of `Datastore`, as checks
* ``driver_contract``: the contract of `Driver`, as checks
* ``fakes``: fake runners, pools and calls on virtual time
* ``function``: calling a function's socket, and the contract suite's simulated function
* ``keep_alive_contract``: the contract of `KeepAlive`, as checks
* ``memory``: engagements and a runner client in memory, without a wire
* ``placer_contract``: the contract of `Placer`, as checks
* ``pool_contract``: the contract of `RunnerPool`, as checks
* ``runner_contract``: the contract of `Runner`, as checks
"""

from __future__ import annotations

from .contracts import ContractBroken, DriverSubject, OpenSubject
from .datastore_contract import DATASTORE_CHECKS, OpenDatastore, check_datastore
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
from .pool_contract import POOL_CHECKS, OpenPoolSubject, PoolSubject, check_pool
from .runner_contract import RUNNER_CHECKS, OpenRunnerSubject, RunnerSubject, check_runner

__all__ = [
    "DATASTORE_CHECKS",
    "DRIVER_CHECKS",
    "KEEP_ALIVE_CHECKS",
    "NACK",
    "PLACER_CHECKS",
    "POOL_CHECKS",
    "RUNNER_CHECKS",
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
    "OpenDatastore",
    "OpenPoolSubject",
    "OpenRunnerSubject",
    "OpenSubject",
    "PoolSubject",
    "ReadyWatch",
    "RunnerSubject",
    "ScriptBroke",
    "add_sim_function",
    "call_function",
    "check_datastore",
    "check_driver",
    "check_keep_alive",
    "check_placer",
    "check_pool",
    "check_runner",
    "fake_call",
    "memory_engagement_pair",
]
