"""How far a long step is, on stderr."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._print_output import printable

TAIL = 40
"""Lines of a step that failed that are shown where only the last one was."""
_TO_START = "\r\033[K"
"""Of the line, which is cleared."""


@contextmanager
def progress(what: str, verbose: bool) -> Iterator[Callable[[str], None]]:
    """Yields what to call with each line that the step prints.

    For people that is one line, which changes; if the step fails, its last `TAIL`. ``verbose``:
    all lines. Where nobody looks: only ``what``.
    """
    if verbose or not sys.stderr.isatty():
        _print(f"{what}\n")
        yield _print_line if verbose else _nothing
        return
    last: deque[str] = deque(maxlen=TAIL)

    def on_line(line: str) -> None:
        last.append(line)
        _show(f"{what}  {line}")

    _show(what)
    try:
        yield on_line
    except BaseException:
        _print(_TO_START)
        for line in last:
            _print_line(line)
        raise
    _print(_TO_START)


def _show(text: str) -> None:
    columns = shutil.get_terminal_size().columns
    _print(_TO_START + printable(text)[: columns - 1])


def _print_line(line: str) -> None:
    _print(f"{printable(line)}\n")


def _nothing(line: str) -> None:
    pass


def _print(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
