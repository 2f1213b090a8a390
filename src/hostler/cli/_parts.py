"""Parts that several nodes are made of."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import structlog
import trio
from prometheus_client import REGISTRY

from hostler._asgi import cors, with_middleware
from hostler.abc import CallAgent, Driver, KeepAlive
from hostler.bodies import BodyBudget
from hostler.config import AgentConfig
from hostler.errors import ConfigError
from hostler.front import ASGIApp, HttpServer, invoke_app, serve_http

from ._catalog import Lookup
from ._life import Life
from ._load import make_loaded
from ._page import Page
from ._settings import Settings
from ._tail import Tail
from .workers import Colleagues

if TYPE_CHECKING:
    from hostler.lb import DrainReport, Footprint

# What only some nodes use is imported where it is: the others need not wait for it, or hold it.

log = structlog.get_logger(__name__)


def tell_drain(report: DrainReport, before: Footprint) -> None:
    """Tell how the drain went, once all is closed that was opened after ``before``."""
    found = report.since(before)
    told = log.info if found.clean else log.warning
    told("drained", **attrs.asdict(found))


def calls_app(
    agent: CallAgent,
    lookup: Lookup,
    settings: Settings,
    life: Life,
    page: Page,
    bodies: BodyBudget,
    tail: Tail | None = None,
) -> ASGIApp:
    """``tail`` is that of a node which runs functions itself."""
    agent, catalog = page.observed(agent, lookup.catalog)
    app = invoke_app(
        agent,
        catalog,
        triggers=catalog,
        mounts={
            **lookup.mounts,
            **page.mount(life.shutdown),
            **(tail.mount(life.shutdown) if tail else {}),
        },
        config=settings.node,
        registry=REGISTRY,
        bodies=bodies,
        ready=life.is_ready,
    )
    origins, headers = settings.node.api_cors_origins, settings.node.api_cors_headers
    return with_middleware(app, [cors(origins, headers)]) if origins else app


def keep_alive_of(config: AgentConfig) -> KeepAlive:
    """The policy that is configured, the operator's own too. Raises `ConfigError`."""
    name = config.keep_alive
    if ":" not in name:
        from hostler.keep_alive import make_keep_alive

        return make_keep_alive(config)
    policy = make_loaded(name, "--keep-alive", config)
    if not isinstance(policy, KeepAlive):
        made = type(policy).__name__
        raise ConfigError(f"--keep-alive {name!r}: made a {made}, which is no KeepAlive")
    return policy


@asynccontextmanager
async def opened_driver(
    name: str, config: AgentConfig, settings: Settings, colleagues: Colleagues | None = None
) -> AsyncIterator[Driver]:
    """``colleagues`` are those of a worker. Raises `ConfigError`, and what the driver raises."""
    async with _driver(name, config, settings, colleagues) as driver:
        if not isinstance(driver, Driver):
            raise ConfigError(f"--driver {name!r}: made a {type(driver).__name__}, no Driver")
        yield driver


def _driver(
    name: str, config: AgentConfig, settings: Settings, colleagues: Colleagues | None
) -> AbstractAsyncContextManager[Driver]:
    if name == "docker" and colleagues is not None:
        from .workers.docker import open_worker_driver

        return open_worker_driver(config, settings.env, colleagues, settings.grace)
    if name == "docker":
        from hostler.drivers.docker import open_docker_driver

        return open_docker_driver(config, environ=settings.env, grace=settings.grace)
    if name == "process":
        from hostler.drivers.process import open_process_driver

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
