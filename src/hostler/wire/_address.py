"""``host:port`` in text."""

from __future__ import annotations

from typing import Any

from hostler.config import is_host


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of ``host:port``, ``[v6]:port`` or ``:port`` (host "").

    Raises ValueError with a text that shows ``address``.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or (":" in host and not bracketed):
        raise ValueError(f"address {address!r} is not of the form host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise ValueError(f"address {address!r} has no port between 0 and 65535")
    if not is_host(host):
        raise ValueError(f"address {address!r} names no host")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_address(name: Any) -> str:
    """``host:port`` of a socket's peer name; "" if the peer is gone already."""
    return join_address(*name[:2]) if name else ""
