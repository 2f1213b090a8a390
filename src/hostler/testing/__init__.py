"""Public fakes and contract suites, for tests of hostler and of what you build on it."""

from __future__ import annotations

from ._function import FunctionAnswer, FunctionBroke, ReadyWatch, call_function

__all__ = [
    "FunctionAnswer",
    "FunctionBroke",
    "ReadyWatch",
    "call_function",
]
