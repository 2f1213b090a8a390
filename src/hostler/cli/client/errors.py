"""How a client command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable

import trio

from ...config import NodeConfig
from ...errors import APIError, HostlerError
from ...logs import open_logs
from ...rules.errors import DatastoreUnavailable
from ..errors import explanation, leaves, tell

FAILED = 1
"""Anything that has no code of its own."""
USAGE = 2
"""Wrong options or arguments (Click's code)."""
NOT_FOUND = 3
CONFLICT = 4
"""What is asked for does not go with what is there: it exists already, for example."""
UNAVAILABLE = 5
"""The server can't be reached, is too busy, or lacks its database: worth another try."""
FUNCTION_FAILED = 6
"""The function was called, and failed."""
_PASSWORD = re.compile("//[^/@]*@")
"""In a URL: nobody wants to read it on the screen."""
_BY_STATUS = {404: NOT_FOUND, 409: CONFLICT, 429: UNAVAILABLE, 503: UNAVAILABLE}


class CommandFailed(HostlerError):
    """A command's own failure, with its exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def run_command(work: Callable[[], Awaitable[None]], server: str = "") -> None:
    """Run ``work`` in a Trio loop; a failure of the surroundings ends the process with its code.

    ``server`` is named if it can't be reached.
    """
    try:
        with open_logs(NodeConfig(log_level="warn")):
            trio.run(work, strict_exception_groups=True)
    except BaseException as error:
        if (code := _told(error, server)) is None:
            raise
        sys.exit(code)


def _told(error: BaseException, server: str) -> int | None:
    """The exit code of a failure that was told of; ``None`` for anything else."""
    found = list(leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
        return 128 + signal.SIGINT
    if all(isinstance(leaf, BrokenPipeError) for leaf in found):
        # The reader of our output has enough; nor can what is still buffered be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    first, server = found[0], without_password(server)
    if isinstance(first, UnicodeEncodeError):
        tell(f"{first.object!r} is not UTF-8")
        return USAGE
    text = _unreachable(first, server) or _no_api(first, server) or explanation(error)
    if text is None:
        return None
    tell(text)
    return exit_code(first)


def without_password(url: str) -> str:
    return _PASSWORD.sub("//", url)


def exit_code(error: BaseException) -> int:
    if isinstance(error, CommandFailed):
        return error.code
    if isinstance(error, APIError):
        return _BY_STATUS.get(error.code, FAILED)
    return FAILED


def _no_api(error: BaseException, server: str) -> str | None:
    """What to say of a node that takes calls only, or of a server that is no node at all."""
    if not isinstance(error, APIError) or not server:
        return None
    from ...api_client import is_foreign

    if not is_foreign(error) and not error.message.startswith("Path not found: "):
        return None
    return f"{server} has no API for functions (it answered {error.code}). Is --server right?"


def _unreachable(error: BaseException, server: str) -> str | None:
    """What to say of an `ApiUnavailable`: its own text is for those who must not see hosts."""
    if not isinstance(error, DatastoreUnavailable) or not hasattr(error, "reason"):
        return None
    reason = " ".join(str(error.reason).split())
    return f"{server} does not answer as it should ({reason}). Is it running? Is --server right?"
