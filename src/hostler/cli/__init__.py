"""The ``hostler`` command: nodes composed of the parts below, from options and variables.

_main, _groups     the command, which imports the one that is wanted
commands/          those that run nodes, and their options
client/            those that ask nodes, and that bring functions to them
_serve, _lb, ...   the nodes
"""

from ._main import app, main

__all__ = ["app", "main"]
