"""The ``hostler`` command: nodes composed of the parts below, from options and variables."""

from ._commands import app, main

__all__ = ["app", "main"]
