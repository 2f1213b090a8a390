"""Texts that name hosts, ports, URLs and runner targets."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from .base import COMMA_LIST, SettingType

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]@?#]+):([0-9]{1,5})", re.ASCII)
_SYSLOG_SCHEMES = ("udp", "tcp")
_DNS_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


def is_host(name: str) -> bool:
    """Whether a host may have that name, or address: no part of it is empty or too long. Python
    refuses to look others up by an exception of its own kind."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def is_host_port(text: str) -> bool:
    """Whether ``text`` is ``host:port`` or ``[IPv6]:port`` with a port from 1 to 65535."""
    match = _HOST_PORT.fullmatch(text)
    return match is not None and is_host(match[1]) and 1 <= int(match[2]) <= 65_535


def is_runner_target(text: str) -> bool:
    """Whether ``text`` is ``host:port``, ``dns://name:port`` or ``srv://name``."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return is_host_port(text)
    if scheme == "dns":
        return is_host_port(rest)
    return scheme == "srv" and _DNS_NAME.fullmatch(rest) is not None


def parse_dns_server(text: str) -> tuple[str, int]:
    """Address and port of ``address`` or ``address:port``. Raises `ValueError`."""
    host, port = text, 53
    if text.count(":") == 1 or text.startswith("["):
        host, _, digits = text.rpartition(":")
        port = int(digits)
    if not 0 < port < 65_536:
        raise ValueError(text)
    return str(ipaddress.ip_address(host.strip("[]"))), port


def _is_dns_server(value: Any) -> bool:
    if value == "":
        return True
    try:
        parse_dns_server(value)
    except (ValueError, AttributeError):
        return False
    return True


def _is_targets(value: Any) -> bool:
    return (
        COMMA_LIST.accepts(value)
        and all(is_runner_target(item) for item in value)
        and len(set(value)) == len(value)
    )


def _is_http_url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        return not value or (parts.scheme in ("http", "https") and host != "" and is_host(host))
    except ValueError:  # a broken IPv6 host
        return False


def _is_log_dest(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if value == "stderr":
        return True
    scheme, separator, rest = value.partition("://")
    if not separator:
        return is_host_port(value)
    if scheme == "file":
        return rest.startswith("/") and len(rest) > 1
    return scheme in _SYSLOG_SCHEMES and is_host_port(rest)


def _parse_names(text: str) -> tuple[str, ...]:
    """Names as requests have them: IDNA in lower case."""
    try:
        return tuple(
            name if name == "*" else "." * name.startswith(".") + _idna(name.removeprefix("."))
            for name in COMMA_LIST.parse(text)
        )
    except UnicodeError:
        raise ValueError(text) from None


def _idna(name: str) -> str:
    return name.encode("idna").decode().lower()


def _is_names(value: Any) -> bool:
    return COMMA_LIST.accepts(value) and all(
        name == "*" or (_DNS_NAME.fullmatch(name) is not None and is_host(name.removeprefix(".")))
        for name in value
    )


HOST_NAMES = SettingType(
    "names without a port, separated by commas: name, .domain (with all below it) or *",
    _parse_names,
    _is_names,
)

TARGETS = SettingType(
    "host:port, dns://name:port or srv://name, separated by commas, each once, IPv6 in brackets",
    COMMA_LIST.parse,
    _is_targets,
)

HTTP_URL = SettingType("an http or https URL, or nothing", str, _is_http_url)

LOG_DEST = SettingType(
    "stderr, udp://host:port, tcp://host:port, file:///path or host:port",
    str,
    _is_log_dest,
)

DNS_SERVER = SettingType("an IP address, or address:port, or nothing", str, _is_dns_server)


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
