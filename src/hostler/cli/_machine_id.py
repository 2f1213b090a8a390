"""Where the ids of a node's process come from."""

from __future__ import annotations

import ipaddress
import socket

from hostler.ids import machine_id_of, set_machine_id

_ELSEWHERE = "192.0.2.1"
"""An address of documentation (RFC 5737): no host has it, so the default route leads to it."""


def take_machine_id(bound: str) -> None:
    """Make ids tell the node that made them, by the address (``host:port``) that it is bound to.

    On all interfaces that is the address from which others are reached. A node without IPv4 keeps
    the random machine id of its process.
    """
    host, _, port = bound.rpartition(":")
    address: str | None = host.strip("[]")
    if ipaddress.ip_address(host.strip("[]")).is_unspecified:
        address = own_address()
    if address is not None and ":" not in address:  # the field has no room for IPv6
        set_machine_id(machine_id_of(address, int(port)))


def own_address(to: str = _ELSEWHERE) -> str | None:
    """The IPv4 address from which ``to`` would be reached, ``None`` if there is none.

    Sends nothing: connecting a datagram socket only looks up the route.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((to, 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return address
