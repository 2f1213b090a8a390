"""Parts that nodes share: guarded application, driver, HTTP serving, following TLS files."""

from __future__ import annotations

import functools
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from .. import wire
from .._asgi import Access, AccessControl, Hosts, Tokens, cors, is_loopback, with_middleware
from .._concurrency.nurseries import open_background
from ..abc import CallAgent, Driver, KeepAlive, PKIData
from ..bodies import BodyBudget
from ..config import AgentConfig
from ..errors import ConfigError
from ..front import ASGIApp, HttpServer, address_of, invoke_app, parse_bind, serve_http
from ..ui import login_app
from .function_lookup import Lookup
from .lifetime import NodeLifetime
from .page import NodePage, Tail
from .settings import Settings, make_loaded
from .workers import PeerWorkers

if TYPE_CHECKING:
    from ..lb import DrainReport, ResourceUse

# What only some nodes use is imported where it is: the others need not wait for it, or hold it.

log = structlog.get_logger(__name__)


def tell_drain(report: DrainReport, before: ResourceUse) -> None:
    """Tell how the drain went, once all is closed that was opened after ``before``."""
    found = report.since(before)
    told = log.info if found.clean else log.warning
    told("drained", **attrs.asdict(found))


def calls_app(
    agent: CallAgent,
    lookup: Lookup,
    settings: Settings,
    life: NodeLifetime,
    page: NodePage,
    bodies: BodyBudget,
    listeners: Sequence[trio.SocketListener],
    tail: Tail | None = None,
    *,
    tells: bool = True,
) -> ASGIApp:
    """``tail`` is that of a node which runs functions itself."""
    mounts = {
        **lookup.mounts,
        **page.mount(life.shutdown),
        **(tail.mount(life.shutdown) if tail else {}),
    }
    app = invoke_app(
        agent,
        lookup.catalog,
        triggers=lookup.catalog,
        mounts=mounts,
        config=settings.node,
        registry=life.registry,
        bodies=bodies,
        ready=life.is_ready,
    )
    return guarded(app, settings, listeners, {*mounts, *CALLS}, tells=tells)


CALLS = ("/invoke", "/t")


def guarded(
    app: ASGIApp,
    settings: Settings,
    listeners: Sequence[trio.SocketListener],
    paths: Collection[str],
    *,
    bind: str | None = None,
    tells: bool = True,
) -> ASGIApp:
    """``app``, which has ``paths``, for those who may ask it, and a log line if others than this
    machine may (unless another process ``tells`` of it). ``bind`` is the settings' by default."""
    node = settings.node
    addresses = [address_of(listener) for listener in listeners]
    is_local = all(is_loopback(parse_bind(address)[0]) for address in addresses)
    names = [*node.allowed_hosts, urlsplit(node.public_lb_url).hostname or "localhost"]
    host, _ = parse_bind(settings.bind if bind is None else bind)
    takes_all = not is_local and not node.allowed_hosts
    tokens = Tokens(node.api_token)
    access = Access(
        hosts=Hosts(["*"] if takes_all else [*names, host] if host else names),
        origins=node.api_cors_origins,
        local=is_local and all(map(is_loopback, names)),
        tokens=tokens,
        call_tokens=Tokens(node.invoke_token),
        login=login_app(tokens) if "/ui" in paths else None,
    )
    if tells and not is_local:
        _tell_open(settings, addresses, paths)
    app = AccessControl(app, access)
    if not node.api_cors_origins:
        return app
    return with_middleware(app, [cors(node.api_cors_origins, node.api_cors_headers)])


def _tell_open(settings: Settings, addresses: Sequence[str], paths: Collection[str]) -> None:
    """What others can do without a token; more than to call functions is worth a warning."""
    calls = [] if settings.node.invoke_token else [path for path in CALLS if path in paths]
    others = [] if settings.node.api_token else sorted({*paths} - {*CALLS, "/metrics"})
    told = log.warning if others else log.info
    told(
        "whoever reaches this node can use it without a token",
        listens=addresses,
        paths=[*others, *calls, "/metrics"],
        **({"setting": "FN_API_TOKEN"} if others else {}),
    )


def keep_alive_of(config: AgentConfig) -> KeepAlive:
    """The policy that is configured, the operator's own too. Raises `ConfigError`."""
    name = config.keep_alive
    if ":" not in name:
        from ..keep_alive import make_keep_alive

        return make_keep_alive(config)
    policy = make_loaded(name, "--keep-alive", config)
    if not isinstance(policy, KeepAlive):
        made = type(policy).__name__
        raise ConfigError(f"--keep-alive {name!r}: made a {made}, which is no KeepAlive")
    return policy


@asynccontextmanager
async def opened_driver(
    name: str, config: AgentConfig, settings: Settings, colleagues: PeerWorkers | None = None
) -> AsyncIterator[Driver]:
    """``colleagues`` are those of a worker. Raises `ConfigError`, and what the driver raises."""
    async with _driver(name, config, settings, colleagues) as driver:
        if not isinstance(driver, Driver):
            raise ConfigError(f"--driver {name!r}: made a {type(driver).__name__}, no Driver")
        yield driver


def _driver(
    name: str, config: AgentConfig, settings: Settings, colleagues: PeerWorkers | None
) -> AbstractAsyncContextManager[Driver]:
    if name == "docker" and colleagues is not None:
        from .workers.docker import open_worker_driver

        return open_worker_driver(config, settings.env, colleagues, settings.grace)
    if name == "docker":
        from ..drivers.docker import open_docker_driver

        return open_docker_driver(config, environ=settings.env, grace=settings.grace)
    if name == "process":
        from ..drivers.process import open_process_driver

        return open_process_driver()
    if ":" not in name:
        raise ConfigError(f"--driver {name!r}: takes docker, process or module:attribute")
    manager = make_loaded(name, "--driver", config)
    if not isinstance(manager, AbstractAsyncContextManager):
        raise ConfigError(
            f"--driver {name!r}: must return an async context manager that yields a Driver, "
            f"not a {type(manager).__name__}"
        )
    return manager


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listeners: list[trio.SocketListener],
    settings: Settings,
    shutdown: trio.Event,
) -> AsyncIterator[HttpServer]:
    """Serve HTTP until ``shutdown``, then drain, before the parts behind it are closed."""
    async with trio.open_nursery() as nursery:
        server: HttpServer = await nursery.start(
            functools.partial(
                serve_http,
                app,
                listeners,
                config=settings.node,
                shutdown=shutdown,
                grace=settings.grace,
            )
        )
        yield server


@asynccontextmanager
async def following_tls(
    pki: PKIData | None, make: Callable[[PKIData], ssl.SSLContext], interval: float
) -> AsyncIterator[wire.TLSFiles | None]:
    """The files of ``pki``, looked at every ``interval`` seconds and at once on SIGHUP.

    ``None`` without ``pki``. Raises `ConfigError` if they can't be used now.
    """
    if pki is None:
        yield None
        return
    files = wire.TLSFiles(pki, make)
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async with open_background() as nursery:
            nursery.start_soon(files.watch, interval)
            nursery.start_soon(_reload_on, signals, files)
            yield files
            nursery.cancel_scope.cancel()


async def _reload_on(signals: AsyncIterator[int], files: wire.TLSFiles) -> None:
    async for _ in signals:
        log.info("looking at the TLS files", changed=files.reload())


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
    from ..front import parse_bind  # the front end is more than clients need

    return is_loopback(parse_bind(bind)[0])
