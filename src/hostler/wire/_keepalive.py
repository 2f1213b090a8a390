"""When a silent peer is given up."""

from __future__ import annotations

import socket

import attrs


@attrs.frozen
class Keepalive:
    """When an idle connection is checked. Seconds.

    A ping goes out after ``interval`` without any data from the peer, and the connection is given
    up after ``timeout`` without an answer: a vanished peer is noticed within their sum.
    The default interval stays above the five minutes that grpc servers demand unless told
    otherwise; they end the connections of clients that ask more often. Hosts that are gone from
    the network are noticed earlier by the kernel, whose probes grpc does not count: within
    ``vanished``, or 2 if it is less, on idle connections and on those with unanswered data.
    """

    interval: float = 310.0
    timeout: float = 20.0
    vanished: float = 30.0

    def socket_options(self) -> dict[str, int]:
        """The options of a TCP socket, by name.

        Linux counts probes by TCP_KEEPCNT only without TCP_USER_TIMEOUT (RFC 5482), which it
        compares when it sends a probe, and only after the first: hence one interval less.
        """
        probe = max(1, int(self.vanished / 5))
        return {
            "TCP_KEEPIDLE": probe,
            "TCP_KEEPINTVL": probe,
            "TCP_KEEPCNT": 5,
            "TCP_USER_TIMEOUT": max(1000, int((self.vanished - probe) * 1000)),
        }

    def set_options(self, sock: socket.socket) -> None:
        """Set those of a connected socket, which is to send at once what it is given."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in self.socket_options().items():
            option = getattr(socket, name, None)  # (Linux has them all)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


DEFAULT_KEEPALIVE = Keepalive()
