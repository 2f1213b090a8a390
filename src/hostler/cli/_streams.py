"""Standard streams for a process that was started without them."""

from __future__ import annotations

import os
import sys

_MODES = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def open_missing_streams() -> None:
    """Open ``/dev/null`` in the place of each standard stream that is closed.

    Otherwise the next file or socket that is opened takes its number, and gets what a library or a
    child process has to say; and Python has ``None`` for it, on which programs fail. Has to be
    called before anything stays open.
    """
    for number, (name, mode) in _MODES.items():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
