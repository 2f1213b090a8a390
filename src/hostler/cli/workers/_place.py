"""What a worker process is told of its place among the others."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import attrs
import msgspec
import trio

from hostler.config import BodyConfig, PlacerConfig

from ._part import RunnerPart

Config = TypeVar("Config", PlacerConfig, BodyConfig)

VARIABLE = "HOSTLER_WORKER"
"""Of the environment of a worker, set by its supervisor only."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One of ``count`` workers. Descriptors are inherited."""

    number: int
    """From 0."""
    count: int
    listeners: tuple[int, ...]
    """Listening sockets, which no other worker has."""
    ready: int
    """Gets the line with the addresses once the worker takes calls."""
    orders: int
    """A pipe from the supervisor, see `hostler.cli._life`."""
    folder: str
    """Where the sockets of all workers are, on which they ask each other."""
    part: RunnerPart | None = None
    """If it is a runner."""

    def text(self) -> str:
        """For `VARIABLE`."""
        return msgspec.json.encode(self).decode()

    def open_listeners(self) -> list[trio.SocketListener]:
        """The listening sockets; the caller closes them."""
        return [
            trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=number)))
            for number in self.listeners
        ]

    def part_of(self, config: Config, *limits: str) -> Config:
        """``config`` with this worker's part, rounded up, of ``limits`` of the node as a whole."""
        parts = {limit: -(-getattr(config, limit) // self.count) for limit in limits}
        return attrs.evolve(config, **parts)

    def socket_of(self, number: int) -> Path:
        return Path(self.folder, f"{number}.sock")


def place_in(env: Mapping[str, str]) -> Place | None:
    """``None`` if the process is no worker."""
    text = env.get(VARIABLE)
    return None if text is None else msgspec.json.decode(text, type=Place)
