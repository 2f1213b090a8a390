"""Where a node looks functions up: a declaration file, its own database, or another node's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from .._asgi.middleware import Middleware
from .._asgi.types import ASGIApp, Message, Receive, Scope, Send
from .._concurrency.signal import Signal
from ..config import ApiConfig, StoreConfig
from ..datastore import Datastore
from ..errors import ConfigError
from ..functions import CachedFunctions, Catalog, FunctionTable, open_cached_functions
from .lifetime import NodeLifetime
from .settings import Settings

if TYPE_CHECKING:
    from ..agent import Agent

_READS = ("GET", "HEAD", "OPTIONS")


@attrs.frozen
class Lookup:
    """What a front end needs to find functions."""

    catalog: Catalog
    mounts: Mapping[str, ASGIApp] = attrs.Factory(dict)
    """Applications that belong to it: the API of the database."""
    listed: FunctionTable | Datastore | None = None
    """What the page lists."""
    keep_warm: Callable[[Agent], Awaitable[None]] | None = None
    """Keeps those ready on an agent that ask for it, until it is cancelled."""

    @classmethod
    def declared(cls, functions: FunctionTable) -> Lookup:
        return cls(functions, listed=functions)


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Datastore]:
    """The node's database."""
    from ..store import open_datastore

    async with AsyncExitStack() as stack:
        config = StoreConfig.from_env(settings.env)
        try:
            store = await stack.enter_async_context(open_datastore(config))
        except OSError as error:
            if error.filename is None:
                raise
            raise ConfigError(
                f"can't create {error.filename}, the folder of the database "
                f"({error.strerror}); choose another database by FN_DB_URL"
            ) from error
        yield store


@asynccontextmanager
async def opened_database(settings: Settings, life: NodeLifetime) -> AsyncIterator[Lookup]:
    """The functions of the node's database, and the API that changes them.

    A change through this node's API is seen by its next call; one that another node makes in the
    same database, after ``FN_LOOKUP_TTL``.
    """
    from ..agent import keep_stored_warm  # a load balancer has no agent

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store(settings))
        functions = await stack.enter_async_context(
            open_cached_functions(store, ApiConfig.from_env(settings.env))
        )
        changed = Signal()
        yield Lookup(
            functions,
            api_mount(store, settings, life, [_clearing(functions, changed)]),
            listed=store,
            keep_warm=lambda agent: keep_stored_warm(agent, store, changed),
        )


@asynccontextmanager
async def opened_remote(url: str, settings: Settings) -> AsyncIterator[Lookup]:
    """The functions that the API at ``url`` has, of which only scheme, host and port count: so it
    is with Fn, whose variable it is."""
    from ..api_client import open_api_client

    config, parts = ApiConfig.from_env(settings.env), urlsplit(url)
    if not config.token and settings.node.api_token:
        config = attrs.evolve(config, token=settings.node.api_token[0])
    async with (
        open_api_client(f"{parts.scheme}://{parts.netloc}", config) as client,
        open_cached_functions(client, config) as functions,
    ):
        yield Lookup(functions)


def api_mount(
    store: Datastore, settings: Settings, life: NodeLifetime, middleware: Sequence[Middleware] = ()
) -> dict[str, ASGIApp]:
    """``/v2`` over ``store``."""
    from ..api import PREFIX, api_app

    limits = StoreConfig.from_env(settings.env).limits
    app = api_app(
        store,
        config=settings.node,
        limits=limits,
        middleware=middleware,
        metrics=life.http_metrics,
    )
    return {PREFIX: app}


def _clearing(functions: CachedFunctions, changed: Signal) -> Middleware:
    """Forget what was looked up before a change is answered, and tell of the change."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def clearing(message: Message) -> None:
                if message["type"] == "http.response.start":
                    functions.clear()
                    changed.note()
                await send(message)

            await app(scope, receive, send if scope.get("method") in _READS else clearing)

        return wrapped

    return wrap
