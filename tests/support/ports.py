"""Ports for servers that are told where to listen, or come back where they were."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Nobody's now, and below those that the kernel gives to connections and to listeners that ask
    for any: one of these could be somebody's before the server has it."""
    while True:
        port = random.randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
