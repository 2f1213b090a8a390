"""What may go wrong on the command line, and how it is told: one line, exit code 1."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator

from ..errors import HostlerError
from ..logs import open_stream

EXPECTED = (HostlerError, OSError)
"""Failures of the surroundings: settings, files, ports, engines. Others are bugs and keep their
traceback."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups; an error that is no group is its own leaf."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def explanation(error: BaseException) -> str | None:
    """One line for a failure of the surroundings, ``None`` for anything else."""
    found = list(leaves(error))
    if not all(isinstance(leaf, EXPECTED) for leaf in found):
        return None
    texts = dict.fromkeys(_text(leaf) for leaf in found)
    return "; ".join(texts)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        option = next(iter(getattr(error, "__notes__", ())), "--bind")
        text += f"; another program listens there: end it, or choose another address with {option}"
    return " ".join(text.split())


def tell(text: str) -> None:
    """One line on stderr, of a text of several too; a process whose stderr is stuck ends all the
    same."""
    with open_stream(sys.stderr) as stderr:
        stderr.msg(f"hostler: error: {' '.join(text.split())}")
