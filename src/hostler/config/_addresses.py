"""Settings that name places in the network."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from ._kinds import COMMA_LIST, Kind

_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]@?#]+):([0-9]{1,5})", re.ASCII)
_SYSLOG_SCHEMES = ("udp", "tcp")


def is_host_port(text: str) -> bool:
    """Whether ``text`` is ``host:port`` or ``[IPv6]:port`` with a port from 1 to 65535."""
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 1 <= int(match[1]) <= 65_535


def _is_addresses(value: Any) -> bool:
    return (
        COMMA_LIST.accepts(value)
        and all(is_host_port(item) for item in value)
        and len(set(value)) == len(value)
    )


def _is_http_url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return not value or (parts.scheme in ("http", "https") and bool(parts.hostname))
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


ADDRESSES = Kind(
    "host:port addresses separated by commas, each once, IPv6 in brackets",
    COMMA_LIST.parse,
    _is_addresses,
)
HTTP_URL = Kind("an http or https URL, or nothing", str, _is_http_url)
LOG_DEST = Kind(
    "stderr, udp://host:port, tcp://host:port, file:///path or host:port",
    str,
    _is_log_dest,
)
