"""TLS of the HTTP server: a client's socket whose bytes are encrypted.

The protocol is OpenSSL's, on memory, so that the socket itself stays what `ClientSocket` is: read
and written without a stream, and watched for its end.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Protocol, TypeAlias

from ..protocol import BODY_PIECE
from .server import Address, ClientGone, ClientSocket

RECORD = 16 * 1024
"""Bytes that one record of TLS takes."""

NO_TLS = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
)
"""What a client gets that speaks HTTP without TLS, in the words of Go's server, hence of Fn's."""


class ContextSource(Protocol):
    """Files of certificates that are followed, such as `hostler.wire.TLSFiles`."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        ...


ServerTLS: TypeAlias = ssl.SSLContext | ContextSource
"""What a server takes: a fixed context, or one that follows its files."""


def client_socket(sock: socket.socket, peer: Address | None, tls: ServerTLS | None) -> ClientSocket:
    """The socket of a client that has just connected."""
    if tls is None:
        return ClientSocket(sock, peer)
    context = tls if isinstance(tls, ssl.SSLContext) else tls.context
    return TLSClientSocket(sock, peer, context)


class TLSClientSocket(ClientSocket):
    """A client's socket with TLS. The handshake is part of the first read."""

    def __init__(self, sock: socket.socket, peer: Address | None, context: ssl.SSLContext) -> None:
        super().__init__(sock, peer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False
        """The handshake is done, and our side has not ended."""
        self._has_ended = False
        """Our side. What is received after that is for nobody."""
        self._unsent = b""
        """Encrypted bytes that the kernel has not taken."""
        self._owed = b""
        """Bytes that are among the unsent ones, encrypted, and that the sender was not told of."""

    def read_now(self, most: int = BODY_PIECE) -> bytes | None:
        if self._has_ended:
            return super().read_now(most)
        while True:
            try:
                return self._decrypted(most)
            except ssl.SSLWantReadError:
                self._flush()
                data = super().read_now()
                if data is None:
                    return None
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                self._refuse(error)
                raise ClientGone(f"TLS failed: {error.reason or error}") from error

    def _decrypted(self, most: int) -> bytes:
        if not self._is_open:
            self._tls.do_handshake()
            self._is_open = True
            self._flush()
        return self._tls.read(most)

    def _refuse(self, error: ssl.SSLError) -> None:
        """Tell the client what is wrong: OpenSSL's alert, or words if it speaks no TLS."""
        with suppress(ClientGone):
            if error.reason == "HTTP_REQUEST":
                super().send_now(NO_TLS)
            else:
                self._flush()

    async def read(self, most: int = BODY_PIECE) -> bytes:
        # What was received may be decrypted already: the kernel does not tell of that.
        data = self.read_now(most)
        if data is None:
            return await super().read(most)
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        """As `ClientSocket.send_now`, for a sender that comes again with the bytes that were not
        taken: bytes are encrypted once."""
        if not self._flush():
            return 0
        rest = memoryview(data)
        owed, self._owed = self._owed, b""
        taken = len(owed) if owed and rest[: len(owed)] == owed else 0
        while taken < len(rest):
            piece = rest[taken : taken + RECORD]
            try:
                self._tls.write(piece)
            except ssl.SSLError as error:
                raise ClientGone("the client has gone") from error
            if not self._flush():
                self._owed = bytes(piece)
                break
            taken += len(piece)
        return taken

    def _flush(self) -> bool:
        """Send what is encrypted. Whether the kernel has taken it all. Raises `ClientGone`."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            sent = super().send_now(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:]
        return True

    def is_readable(self) -> bool:
        return self._has_received() or super().is_readable()

    def holds_data(self) -> bool:
        return self._has_received() or super().holds_data()

    def _has_received(self) -> bool:
        return bool(self._incoming.pending or (self._is_open and self._tls.pending()))

    def send_eof(self) -> None:
        self._end()
        super().send_eof()

    def _end(self) -> None:
        """Tell the client that what it got is complete."""
        if self._is_open:
            self._is_open, self._has_ended = False, True
            with suppress(ssl.SSLError):  # the client's own end need not have come
                self._tls.unwrap()
            with suppress(ClientGone):
                self._flush()

    def reset_on_close(self) -> None:
        self._is_open = False
        super().reset_on_close()

    def close(self) -> None:
        self._end()
        super().close()
