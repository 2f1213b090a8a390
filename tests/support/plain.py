"""The plain way: everything without `hostler._fast` and what else is only there to be fast.

Where ``HOSTLER_TEST_PLAIN`` is set, all tests run so but those with the marker ``fast``, and so do
nodes that tests start as processes: this file as a script is `hostler` without fast ways.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hostler import _fast
from hostler.wire import server
from hostler.wire.codec import fast
from hostler.wire.mux import client as mux_client
from hostler.wire.mux import server as mux_server

PLAIN = bool(os.environ.get("HOSTLER_TEST_PLAIN"))
"""Whether all tests run the plain way."""

COMMAND = (
    # (Without this file's folder on the path.)
    [sys.executable, "-P", str(Path(__file__))]
    if PLAIN
    else [str(Path(sys.executable).with_name("hostler"))]
)
"""Runs `hostler` as a process, the way that the tests run."""

_CODECS: tuple[tuple[ModuleType, str], ...] = (
    (fast, "decode_client"),
    (fast, "decode_runner"),
    (fast, "encode_finished"),
    (fast, "encode_load"),
    (fast, "encode_start"),
    (mux_client, "decode_runner"),
    (mux_server, "decode_client"),
    (server, "decode_client"),
)
"""What returns ``None`` for a message that betterproto has to encode or decode. (Tries, commits and
data are only encoded by hand.)"""


def go_plain(change: Callable[[object, str, object], None] = setattr) -> None:
    """Switch the fast ways off, by ``change``."""
    change(_fast, "enabled", False)
    for module, name in _CODECS:
        change(module, name, _declines)
    change(fast, "decode_load", _fails)


def _declines(*_: Any) -> None:
    return None


def _fails(*_: Any) -> None:
    raise ValueError


if __name__ == "__main__":
    from hostler.cli import main

    go_plain()
    sys.argv[0] = "hostler"
    main()
