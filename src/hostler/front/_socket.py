"""A client's socket, used without Trio's stream around it.

A stream sets options of each socket that Linux lets it inherit, tries before it waits, and takes
turns of the scheduler to be closed: all together that was two thirds of what a new connection cost.
"""

from __future__ import annotations

import os
import select
import socket
import struct

import trio

from hostler.protocol import BODY_PIECE

Address = tuple[str, int]


class ClientGone(OSError):
    """The client has closed the connection, or did not take a part of its response in time."""


class ClientSocket:
    """Belongs to one task, which is the only one to wait for it, and closes it."""

    def __init__(self, sock: socket.socket, peer: Address | None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.moved = 0
        """Grows with what is read, and with what is sent."""
        self.unsent = memoryview(b"")
        """What `send_all` has left if it was cancelled."""

    def read_now(self, most: int = BODY_PIECE) -> bytes | None:
        """What is here, up to ``most`` bytes, b"" at the client's end, ``None`` if nothing is.
        Raises `ClientGone`."""
        try:
            data = os.read(self.fd, most)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ClientGone("the client has gone") from error
        self.moved += len(data)
        return data

    async def read(self, most: int = BODY_PIECE) -> bytes:
        """What comes next, up to ``most`` bytes; b"" at the client's end. Raises `ClientGone`.
        Cancelled, it has taken nothing."""
        # It does not try before it waits: mostly there is nothing yet.
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            data = self.read_now(most)
            if data is not None:
                return data

    async def send_all(self, data: bytes | memoryview) -> None:
        """Raises `ClientGone`."""
        await trio.lowlevel.checkpoint()
        self.unsent = memoryview(data)
        while True:
            sent = self.send_now(self.unsent)
            self.moved += sent
            self.unsent = self.unsent[sent:]
            if not self.unsent:
                return
            await trio.lowlevel.wait_writable(self.fd)

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes of it the kernel has taken. Raises `ClientGone`."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone("the client has gone") from error

    def is_readable(self) -> bool:
        """Whether something has arrived: bytes, or the end."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def holds_data(self) -> bool:
        """Whether bytes have arrived that were not read."""
        if not self.is_readable():
            return False
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def send_eof(self) -> None:
        """Nothing more is sent. Raises `OSError`."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the coming end of the connection one that can't be taken for that of a response."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """At once: nobody waits for it (Trio need not be told), and what was sent still goes out.
        Idempotent."""
        self._sock.close()
