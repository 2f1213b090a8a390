"""Parts that nodes share: guarded application, driver, HTTP serving, following TLS files."""

from __future__ import annotations

import functools
import os
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
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
from ..config import AgentConfig, PoolConfig
from ..datastore import Datastore
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
from .extensions import Extensions, opened_part, wrong
from .function_lookup import Lookup
from .lifetime import NodeLifetime
from .settings import AUTO, RunnerSettings, Settings
from .workers import PeerWorkers, Place

if TYPE_CHECKING:
    from ..lb import DrainReport, ResourceUse

# What only some nodes use is imported where it is: the others need not wait for it, or hold it.

log = structlog.get_logger(__name__)


def tell_drain(report: DrainReport, before: ResourceUse | None) -> None:
    """Log how the drain went, and what is left that did not exist ``before``. Call it once
    everything is closed. ``None`` = other code shares the process, so nothing can be said of it."""
    found = report if before is None else report.since(before)
    told = log.info if found.clean else log.warning
    told("drained", **attrs.asdict(found))


@contextmanager
def refusing_endpoints() -> Iterator[None]:
    """A `ConfigError` for endpoints that are there twice."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"endpoints: {error}") from error


CALLS = ("/invoke", "/t")

PREFIX = "/v2"

OWN = ("/", "/version", "/metrics", "/healthz", "/readyz")
"""What each node has."""


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
    extensions: Extensions = attrs.Factory(Extensions)
    store: Datastore | None = None
    """For endpoints."""

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each listener."""
        return [address_of(listener) for listener in self.listeners]

    def serve_calls(
        self, agent: CallAgent, lookup: Lookup, bodies: BodyBudget, *middleware: Middleware
    ) -> AbstractAsyncContextManager[HttpServer]:
        """Serve calls and the mounts until the node's shutdown, then drain."""
        mounts = self._all_mounts()
        app = invoke_app(
            agent,
            lookup.catalog,
            triggers=lookup.catalog,
            mounts=mounts,
            config=self.settings.node,
            registry=self.life.registry,
            metrics=self.life.http_metrics,
            bodies=bodies,
            ready=self.life.is_ready,
        )
        app = self._guarded(app, {*mounts, *CALLS})
        if middleware:
            app = with_middleware(app, middleware)
        return self._serving(app, self.life.shutdown)

    def serve_mounts(self, shutdown: trio.Event) -> AbstractAsyncContextManager[HttpServer]:
        """Serve the mounts, metrics and health until ``shutdown``, then drain."""
        life, mounts = self.life, self._all_mounts()
        app = node_app(mounts=mounts, registry=life.registry, ready=life.is_ready)
        return self._serving(self._guarded(app, mounts), shutdown)

    def _all_mounts(self) -> Mapping[str, ASGIApp]:
        """With the provider's endpoints. Raises `ConfigError` for one where something else is."""
        endpoints = self.extensions.endpoints
        if PREFIX in self.mounts:  # that has its own
            endpoints = [each for each in endpoints if not each.path.startswith(f"{PREFIX}/")]
        if not endpoints:
            return self.mounts
        from ..api import endpoints_app

        firsts = {f"/{each.path[1:].partition('/')[0]}": each for each in endpoints}
        for first, endpoint in firsts.items():
            if not endpoint.path.startswith("/") or first in {*self.mounts, *OWN, *CALLS}:
                raise ConfigError(
                    f"endpoint {endpoint.method} {endpoint.path}: the node has {first} itself"
                )
        node, metrics = self.settings.node, self.life.http_metrics
        with refusing_endpoints():
            app = endpoints_app(endpoints, self.store, config=node, metrics=metrics)
        return {**self.mounts, **dict.fromkeys(firsts, app)}

    def _guarded(self, app: ASGIApp, paths: Collection[str]) -> ASGIApp:
        """``app``, which has ``paths``, for those who may ask it."""
        if self.extensions.root_middleware:
            app = with_middleware(app, self.extensions.root_middleware)
        node, addresses = self.settings.node, self.addresses
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
        pki = self.settings.http_pki()
        interval = PoolConfig.from_env(self.settings.env).tls_reload_interval
        async with (
            following_tls(pki, wire.http_tls, interval) as tls,
            open_background() as nursery,
        ):
            server: HttpServer = await nursery.start(
                functools.partial(
                    serve_http,
                    traced_app(app, self.tracer),
                    self.listeners,
                    config=self.settings.node,
                    shutdown=shutdown,
                    grace=self.settings.grace,
                    tls=tls,
                )
            )
            yield server


def is_first(place: Place | None) -> bool:
    """Whether this process tells what concerns the whole node: of several workers one does."""
    return place is None or place.number == 0


def keep_alive_of(config: AgentConfig, extensions: Extensions) -> KeepAlive:
    """The policy that is configured, the provider's own too. Raises `ConfigError`."""
    if extensions.keep_alive is None:
        from ..keep_alive import make_keep_alive

        return make_keep_alive(config)
    policy = extensions.keep_alive(config)
    if not isinstance(policy, KeepAlive):
        raise wrong(extensions.keep_alive, "KeepAlive", policy)
    return policy


@asynccontextmanager
async def opened_driver(
    name: str,
    config: AgentConfig,
    settings: Settings,
    extensions: Extensions,
    peers: PeerWorkers | None = None,
) -> AsyncIterator[Driver]:
    """The provider's driver, or the one of that ``name``. ``peers`` are the other workers of the
    node, for a worker. Raises `ConfigError`, and what the driver raises."""
    if extensions.driver is not None:
        async with opened_part(extensions.driver, Driver, config) as own:
            yield own
        return
    async with _driver(name, config, settings, peers) as driver:
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
    raise ConfigError(f"--driver {name!r}: takes docker, process or module:attribute")


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
    with ExitStack() as stack:
        async with open_background() as nursery:
            nursery.start_soon(files.watch, interval)
            # Of a program that has its event loop elsewhere the signals are its own business.
            if threading.current_thread() is threading.main_thread():
                signals = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP))
                nursery.start_soon(_reload_on, signals, files)
            yield files
            nursery.cancel_scope.cancel()


async def _reload_on(signals: AsyncIterator[int], files: wire.TLSFiles) -> None:
    async for _ in signals:
        log.info("looking at the TLS files", changed=files.reload())


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


def check_runner(settings: RunnerSettings, extensions: Extensions) -> None:
    """Raises `ConfigError` for a process driver that others could reach, and for extensions that
    need HTTP if there is none."""
    if extensions.driver is None:
        check_reach(
            settings.driver,
            settings.bind,
            protected=settings.pki is not None,
            by="mTLS (--tls-ca, --tls-cert, --tls-key)",
            insecure=settings.insecure,
        )
    if not settings.http_bind and (extensions.endpoints or extensions.root_middleware):
        raise ConfigError(
            "endpoints and root_middleware: this runner serves no HTTP; it needs --http-bind "
            "(FN_HTTP_BIND)"
        )


def is_loopback_bind(bind: str) -> bool:
    """Whether only this machine reaches what listens there. Raises `ConfigError`."""
    return is_loopback(parse_bind(bind)[0])
