"""Which driver a node of its own gets if nobody says."""

from __future__ import annotations

import os
import socket

import structlog

from hostler._asgi import is_loopback
from hostler.errors import ConfigError

log = structlog.get_logger(__name__)

AUTO = "auto"
DRIVERS = ("docker", "process")
DEFAULT_SOCKET = "/var/run/docker.sock"
"""Where Docker's own tools look, too."""


def choose_driver(name: str, bind: str) -> str:
    """``name``; for ``auto``: ``docker``, or ``process`` where there is no engine.

    The process driver runs what a function's image names as a program of this machine, with the
    rights of the node. Whoever reaches the node's API could then run anything here, so it is
    never chosen silently for a node that others can reach. Raises `ConfigError` then, and for a
    name that is none.
    """
    if name in DRIVERS or ":" in name:
        return name
    if name != AUTO:
        raise ConfigError(f"--driver {name!r}: takes auto, docker, process or module:attribute")
    if os.environ.get("DOCKER_HOST") or _answers(DEFAULT_SOCKET):
        return "docker"
    if not is_loopback_bind(bind):
        raise ConfigError(
            f"there is no Docker engine at {DEFAULT_SOCKET}. Start one, or set DOCKER_HOST; or "
            "run functions as plain processes of this machine, without isolation, by "
            "--bind 127.0.0.1:8080 or --driver process"
        )
    log.warning(
        "no Docker engine: functions run as plain processes of this machine, without isolation; "
        "their images are paths of programs",
        looked_at=DEFAULT_SOCKET,
    )
    return "process"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        return probe.connect_ex(path) == 0


def check_reach(name: str, bind: str, *, protected: bool, by: str, insecure: bool) -> None:
    """Raises `ConfigError` for a process driver that other machines reach, unless that is
    ``protected`` ``by`` something, or wanted."""
    if name != "process" or protected or insecure or is_loopback_bind(bind):
        return
    raise ConfigError(
        f"--driver process with --bind {bind}: whoever reaches this node could run programs of "
        f"this machine, without isolation. Set {by}, or listen on 127.0.0.1; or say --insecure "
        "(FN_INSECURE=true) if nobody else can reach it"
    )


def is_loopback_bind(bind: str) -> bool:
    """Whether only this machine reaches what listens there. Raises `ConfigError`."""
    from hostler.front import parse_bind  # the front end is more than clients need

    return is_loopback(parse_bind(bind)[0])
