"""Settings of a node from environment and options, and objects named `module:attribute`."""

from __future__ import annotations

import importlib
import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .._concurrency.drain import DrainBudget
from ..abc import CallOverrider
from ..config import NodeConfig
from ..errors import ConfigError, HostlerError
from ..ids import machine_id_of, set_machine_id


@attrs.frozen(kw_only=True)
class Settings:
    """What a node is made from. ``env`` is what its parts read their own settings from."""

    env: Mapping[str, str]
    node: NodeConfig
    bind: str
    grace: DrainBudget
    """What runs in any of the node's parts gets to finish in a drain."""
    overrider: CallOverrider | None = None


def load_callable(name: str, option: str) -> Callable[..., Any]:
    """Import ``module:attribute`` (dots reach deeper), also from the working directory.

    Raises `ConfigError`, which names ``option``.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ConfigError(f"{option} {name!r}: takes module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        # Whatever the foreign module raises while it is imported is its own trouble.
        raise ConfigError(f"{option} {name!r}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{option} {name!r}: {type(found).__name__} can't be called")
    result: Callable[..., Any] = found
    return result


def make_loaded(name: str, option: str, *args: object) -> Any:
    """What the callable of that name makes of ``args``. Raises `ConfigError`."""
    make = load_callable(name, option)
    try:
        return make(*args)
    except HostlerError:  # says what is wrong
        raise
    except Exception as error:
        text = f"{option} {name!r}: {type(error).__name__}: {error}"
        if inside := traceback.extract_tb(error.__traceback__)[1:]:
            text += f" ({inside[-1].filename}, line {inside[-1].lineno})"
        raise ConfigError(text) from error


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
