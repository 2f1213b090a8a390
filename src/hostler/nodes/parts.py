"""Parts that nodes share: guarded application, driver, HTTP serving, following TLS files."""

from __future__ import annotations

import functools
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import structlog
import trio

from .. import wire
from .._asgi.access import Access, AccessControl, Hosts, Tokens, is_loopback
from .._asgi.middleware import Middleware, cors, with_middleware
from .._concurrency.nurseries import open_background
from ..abc import CallAgent, Driver, KeepAlive, PKIData
from ..bodies import BodyBudget
from ..config import AgentConfig
from ..errors import ConfigError
from ..front import (
    ASGIApp,
    HttpServer,
    address_of,
    invoke_app,
    node_app,
    open_listeners,
    parse_bind,
    serve_http,
)
from ..tracing import Tracer, traced_app
from ..ui import login_app
from .function_lookup import Lookup
from .lifetime import NodeLifetime
from .settings import Settings, make_loaded
from .workers import PeerWorkers, Place

if TYPE_CHECKING:
    from ..lb import DrainReport, ResourceUse

# What only some nodes use is imported where it is: the others need not wait for it, or hold it.

log = structlog.get_logger(__name__)


def tell_drain(report: DrainReport, before: ResourceUse) -> None:
    """Tell how the drain went, once all is closed that was opened after ``before``."""
    found = report.since(before)
    told = log.info if found.clean else log.warning
    told("drained", **attrs.asdict(found))


CALLS = ("/invoke", "/t")


async def listen(
    stack: AsyncExitStack, bind: str, place: Place | None = None, option: str = "--bind"
) -> list[trio.SocketListener]:
    """Listeners for HTTP, which close with ``stack``; a worker is given its own. Raises `OSError`
    that notes the ``option``."""
    if place is not None:
        return place.open_listeners()
    try:
        return await stack.enter_async_context(open_listeners(bind))
    except OSError as error:
        error.add_note(option)
        raise


@attrs.frozen
class NodeHttp:
    """What a node serves over HTTP, and to whom."""

    settings: Settings
    life: NodeLifetime
    bind: str
    listeners: list[trio.SocketListener]
    mounts: Mapping[str, ASGIApp]
    tracer: Tracer | None = None
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    def serve_calls(
        self, agent: CallAgent, lookup: Lookup, bodies: BodyBudget, *middleware: Middleware
    ) -> AbstractAsyncContextManager[HttpServer]:
        """Serve calls and the mounts until the node's shutdown, then drain."""
        app = invoke_app(
            agent,
            lookup.catalog,
            triggers=lookup.catalog,
            mounts=self.mounts,
            config=self.settings.node,
            registry=self.life.registry,
            metrics=self.life.http_metrics,
            bodies=bodies,
            ready=self.life.is_ready,
        )
        app = self._guarded(app, {*self.mounts, *CALLS})
        if middleware:
            app = with_middleware(app, middleware)
        return self._serving(app, self.life.shutdown)

    def serve_mounts(self, shutdown: trio.Event) -> AbstractAsyncContextManager[HttpServer]:
        """Serve the mounts, metrics and health until ``shutdown``, then drain."""
        life = self.life
        app = node_app(mounts=self.mounts, registry=life.registry, ready=life.is_ready)
        return self._serving(self._guarded(app, self.mounts), shutdown)

    def _guarded(self, app: ASGIApp, paths: Collection[str]) -> ASGIApp:
        """``app``, which has ``paths``, for those who may ask it."""
        node = self.settings.node
        addresses = [address_of(listener) for listener in self.listeners]
        is_local = all(is_loopback(parse_bind(address)[0]) for address in addresses)
        names = [*node.allowed_hosts, urlsplit(node.public_lb_url).hostname or "localhost"]
        host, _ = parse_bind(self.bind)
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
        if not is_local and is_first(self.place):
            self._tell_open(addresses, paths)
        app = AccessControl(app, access)
        if not node.api_cors_origins:
            return app
        return with_middleware(app, [cors(node.api_cors_origins, node.api_cors_headers)])

    def _tell_open(self, addresses: Sequence[str], paths: Collection[str]) -> None:
        """What others can do without a token; more than to call functions is worth a warning."""
        node = self.settings.node
        calls = [] if node.invoke_token else [path for path in CALLS if path in paths]
        others = [] if node.api_token else sorted({*paths} - {*CALLS, "/metrics"})
        told = log.warning if others else log.info
        told(
            "anyone who reaches this node can use it without a token",
            listens=addresses,
            paths=[*others, *calls, "/metrics"],
            **({"setting": "FN_API_TOKEN"} if others else {}),
        )

    @asynccontextmanager
    async def _serving(self, app: ASGIApp, shutdown: trio.Event) -> AsyncIterator[HttpServer]:
        """Drains before the parts behind it are closed."""
        async with trio.open_nursery() as nursery:
            server: HttpServer = await nursery.start(
                functools.partial(
                    serve_http,
                    traced_app(app, self.tracer),
                    self.listeners,
                    config=self.settings.node,
                    shutdown=shutdown,
                    grace=self.settings.grace,
                )
            )
            yield server


def is_first(place: Place | None) -> bool:
    """Whether this process tells what concerns the whole node: of several workers one does."""
    return place is None or place.number == 0


def keep_alive_of(config: AgentConfig) -> KeepAlive:
    """The policy that is configured, the operator's own too. Raises `ConfigError`."""
    name = config.keep_alive
    if ":" not in name:
        from ..keep_alive import make_keep_alive

        return make_keep_alive(config)
    policy = make_loaded(name, "--keep-alive", config)
    if not isinstance(policy, KeepAlive):
        made = type(policy).__name__
        raise ConfigError(f"--keep-alive {name!r}: must return a KeepAlive, not a {made}")
    return policy


@asynccontextmanager
async def opened_driver(
    name: str, config: AgentConfig, settings: Settings, peers: PeerWorkers | None = None
) -> AsyncIterator[Driver]:
    """``peers`` are the other workers of the node, for a worker. Raises `ConfigError`, and what the
    driver raises."""
    async with _driver(name, config, settings, peers) as driver:
        if not isinstance(driver, Driver):
            made = type(driver).__name__
            raise ConfigError(f"--driver {name!r}: must yield a Driver, not a {made}")
        yield driver


def _driver(
    name: str, config: AgentConfig, settings: Settings, peers: PeerWorkers | None
) -> AbstractAsyncContextManager[Driver]:
    if name == "docker" and peers is not None:
        from .workers.docker import open_worker_driver

        return open_worker_driver(config, settings.env, peers, settings.grace)
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
            f"there is no Docker engine at {DEFAULT_SOCKET}. Start one, or set DOCKER_HOST. "
            "Functions can also run as plain processes of this machine, without isolation: use "
            "--bind 127.0.0.1:8080 or --driver process"
        )
    log.warning(
        "no Docker engine: functions run as plain processes of this machine, without isolation; "
        "the image of a function is a command line",
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
        f"--driver process with --bind {bind}: anyone who reaches this node could run programs "
        f"on this machine, without isolation. Set {by}, or listen on 127.0.0.1. If nobody else can "
        "reach the node, use --insecure (FN_INSECURE=true)"
    )


def is_loopback_bind(bind: str) -> bool:
    """Whether only this machine reaches what listens there. Raises `ConfigError`."""
    return is_loopback(parse_bind(bind)[0])
