"""Settings of each kind of node, from the environment's variables and in code."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, TypeVar

import attrs

from .._concurrency.drain import DrainBudget
from ..abc import PKIData
from ..config import AgentConfig, LBConfig, NodeConfig, look_up, parse_bool
from ..errors import ConfigError
from ..functions import FunctionTable, load_functions
from ..ids import machine_id_of, set_machine_id

NodeKind = Literal["serve", "lb", "runner", "api"]

AUTO = "auto"
"""The driver that is chosen by what there is: an engine, or none."""

_T = TypeVar("_T")


def _from_variable(name: str, default: _T, read: Callable[[str], _T]) -> _T:
    """A field whose default is what ``read`` makes of a variable, if it is set."""

    def found(settings: Settings) -> _T:
        text = settings.env.get(name, "").strip()
        return read(text) if text else default

    field: _T = attrs.field(default=attrs.Factory(found, takes_self=True))
    return field


def _text(name: str, default: str = "") -> str:
    return _from_variable(name, default, str)


def _flag(name: str, *, default: bool = False) -> bool:
    def read(text: str) -> bool:
        try:
            return parse_bool(text)
        except ValueError:
            raise ConfigError(f"{name}={text!r}: takes true or false") from None

    return _from_variable(name, default, read)


def _names(text: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(text.split()) if isinstance(text, str) else tuple(text)


@attrs.frozen(kw_only=True)
class Settings:
    """What all kinds of nodes are made from. Each field has its default from a variable in ``env``.

    Making settings raises `ConfigError` for a value that can't be used.
    """

    kind: ClassVar[NodeKind]
    default_host: ClassVar[str] = ""
    """On all interfaces."""

    env: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ), repr=False)
    """The variables of all settings (``FN_...``): by default the process's environment."""
    node: NodeConfig = attrs.field(repr=False)
    """Of ``env``."""
    bind: str = attrs.field()
    """``host:port`` to listen on; no host = all interfaces, port 0 = any free port. (FN_HTTP_BIND;
    of a runner that for load balancers)"""
    grace: DrainBudget = attrs.field()
    """What runs in any of the node's parts gets to finish in a drain. (FN_DRAIN_GRACE_MSECS)"""
    extension_names: tuple[str, ...] = attrs.field(converter=_names)
    """``module:attribute`` or the name of an entry point, of `Extensions`. (FN_EXTENSIONS, with
    blanks between them)"""

    @node.default
    def _read_node(self) -> NodeConfig:
        return NodeConfig.from_env(self.env)

    @bind.default
    def _read_bind(self) -> str:
        return self.default_bind()

    @grace.default
    def _read_grace(self) -> DrainBudget:
        grace = LBConfig.from_env(self.env).drain_grace_msecs / 1000
        # A node that has containers removes them within its grace.
        with_containers = self.kind in ("serve", "runner")
        return DrainBudget.for_all(grace) if with_containers else DrainBudget(grace)

    @extension_names.default
    def _read_extensions(self) -> str:
        return look_up(self.env, "FN_EXTENSIONS") or ""

    def default_bind(self) -> str:
        """``bind`` if it is not given."""
        given = self.env.get("FN_HTTP_BIND", "").strip()
        return given or f"{self.default_host}:{self.node.port}"

    def http_pki(self) -> PKIData | None:
        """The files of the HTTP front end; ``None`` = no TLS."""
        cert, key = self.node.http_tls_cert, self.node.http_tls_key
        return PKIData(ca="", key=key, cert=cert) if cert else None

    def named_parts(self) -> dict[str, str]:
        """What the options for one thing name, by the option: ``module:attribute``, or a name of
        hostler's own."""
        return {}


def _functions(settings: Settings) -> FunctionTable | None:
    path = settings.env.get("FN_FUNCTIONS", "").strip()
    return load_functions(path) if path else None


@attrs.frozen(kw_only=True)
class ApiSettings(Settings):
    """Settings of an API node."""

    kind = "api"


@attrs.frozen(kw_only=True)
class ServeSettings(Settings):
    """Settings of a single-process node."""

    kind = "serve"
    default_host = "127.0.0.1"

    driver: str = _text("FN_DRIVER", AUTO)
    """``auto``, ``docker``, ``process`` or ``module:attribute``. (FN_DRIVER)"""
    functions: FunctionTable | None = attrs.field(
        default=attrs.Factory(_functions, takes_self=True)
    )
    """``None`` = those of the node's database. (FN_FUNCTIONS, a file)"""
    insecure: bool = _flag("FN_INSECURE")
    """Others may reach the process driver without a token. (FN_INSECURE)"""
    overrider: str = _text("FN_OVERRIDER")
    """``module:attribute`` of a call overrider. (FN_OVERRIDER)"""

    def named_parts(self) -> dict[str, str]:
        keep_alive = AgentConfig.from_env(self.env).keep_alive
        return {
            "--overrider": self.overrider,
            "--driver": self.driver,
            "--keep-alive": keep_alive,
        }


def _pki(settings: Settings) -> PKIData | None:
    names = ("FN_TLS_CA", "FN_TLS_KEY", "FN_TLS_CERT")
    return pki_of(*(settings.env.get(name) for name in names))


def pki_of(ca: str | None, key: str | None, cert: str | None) -> PKIData | None:
    """``None`` without TLS. Raises `ConfigError` if only some files are given."""
    if not (ca or cert or key):
        return None
    if not (ca and cert and key):
        raise ConfigError("TLS needs all three of --tls-ca, --tls-cert and --tls-key")
    return PKIData(ca=ca, key=key, cert=cert)


@attrs.frozen(kw_only=True)
class LBSettings(Settings):
    """Settings of a load balancer."""

    kind = "lb"

    functions: FunctionTable | None = attrs.field(
        default=attrs.Factory(_functions, takes_self=True)
    )
    """``None`` = those of the API at ``FN_RUNNER_API_URL``. (FN_FUNCTIONS, a file)"""
    pki: PKIData | None = attrs.field(default=attrs.Factory(_pki, takes_self=True))
    """``None`` = no TLS. (FN_TLS_CA, FN_TLS_CERT, FN_TLS_KEY)"""
    tls_name: str = _text("FN_TLS_NAME")
    """Name in the runners' certificates, if it differs from their hosts. (FN_TLS_NAME)"""
    overrider: str = _text("FN_OVERRIDER")
    """``module:attribute`` of a call overrider. (FN_OVERRIDER)"""

    def named_parts(self) -> dict[str, str]:
        return {"--overrider": self.overrider, "--placer": self.node.placer}


@attrs.frozen(kw_only=True)
class RunnerSettings(Settings):
    """Settings of a runner. ``bind`` is where it serves load balancers."""

    kind = "runner"

    driver: str = _text("FN_DRIVER", "docker")
    """``docker``, ``process`` or ``module:attribute``. (FN_DRIVER)"""
    http_bind: str = _text("FN_HTTP_BIND")
    """``host:port`` for metrics, health and the page; "" = none. (FN_HTTP_BIND)"""
    insecure: bool = _flag("FN_INSECURE")
    """Others may reach the process driver without mTLS. (FN_INSECURE)"""
    detached: bool = _flag("FN_DETACHED", default=True)
    """Detached calls are accepted. (FN_DETACHED)"""
    status_image: str = _text("FN_STATUS_IMAGE")
    """Image that is run to check the runner's health. (FN_STATUS_IMAGE)"""
    network_barrier: str = _text("FN_NETWORK_BARRIER")
    """File that shows that the network is enabled. (FN_NETWORK_BARRIER)"""
    stream_logs: bool = _flag("FN_STREAM_LOGS")
    """The output of functions is kept for log collectors. (FN_STREAM_LOGS)"""
    hooks: str = _text("FN_RUNNER_HOOKS")
    """``module:attribute`` of a callable that returns `hostler.runner.Hooks`. (FN_RUNNER_HOOKS)"""
    pki: PKIData | None = attrs.field(default=attrs.Factory(_pki, takes_self=True))
    """``None`` = no TLS. (FN_TLS_CA, FN_TLS_CERT, FN_TLS_KEY)"""
    overrider: str = _text("FN_OVERRIDER")
    """``module:attribute`` of a call overrider. (FN_OVERRIDER)"""

    def default_bind(self) -> str:
        return f":{self.node.grpc_port}"

    def named_parts(self) -> dict[str, str]:
        keep_alive = AgentConfig.from_env(self.env).keep_alive
        return {
            "--overrider": self.overrider,
            "--hooks": self.hooks,
            "--driver": self.driver,
            "--keep-alive": keep_alive,
        }


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
