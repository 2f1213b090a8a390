"""Public fakes and contract suites, for tests of hostler and of what you build on it."""

from __future__ import annotations

from ._function import FunctionAnswer, FunctionBroke, ReadyWatch, call_function
from ._memory import (
    MemoryClientEngagement,
    MemoryServerEngagement,
    memory_engagement_pair,
)
from ._memory_client import MemoryRunnerClient

__all__ = [
    "FunctionAnswer",
    "FunctionBroke",
    "MemoryClientEngagement",
    "MemoryRunnerClient",
    "MemoryServerEngagement",
    "ReadyWatch",
    "call_function",
    "memory_engagement_pair",
]
