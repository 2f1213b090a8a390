"""Where a node looks functions up: a declaration file, its own database, or another node's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeGuard, cast
from urllib.parse import urlsplit

import attrs

from .._asgi.middleware import Middleware
from .._asgi.types import ASGIApp, Message, Receive, Scope, Send
from .._concurrency.signal import Signal
from ..config import ApiConfig, StoreConfig
from ..datastore import Datastore
from ..errors import ConfigError
from ..functions import CachedFunctions, Catalog, FunctionTable, open_cached_functions
from .extensions import Extensions, opened_part, wrong
from .lifetime import NodeLifetime
from .settings import LBSettings, ServeSettings, Settings

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
    store: Datastore | None = None
    """What endpoints get."""
    keep_warm: Callable[[Agent], Awaitable[None]] | None = None
    """Keeps those ready on an agent that ask for it, until it is cancelled."""

    @classmethod
    def declared(cls, functions: FunctionTable) -> Lookup:
        return cls(functions, listed=functions)


def is_datastore(functions: object) -> TypeGuard[Datastore]:
    """Whether it is more than a `Catalog`."""
    return all(hasattr(functions, name) for name in ("apps", "fns", "triggers", "find"))


@asynccontextmanager
async def opened_store(settings: Settings, extensions: Extensions) -> AsyncIterator[Datastore]:
    """The provider's datastore, or the node's database."""
    if extensions.functions is not None:
        async with opened_part(extensions.functions, object, settings) as found:
            if not is_datastore(found):
                raise wrong(extensions.functions, "Datastore", found)
            yield found
        return
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
async def opened_lookup(
    settings: ServeSettings | LBSettings, life: NodeLifetime, extensions: Extensions
) -> AsyncIterator[Lookup]:
    """The provider's functions, those that are declared, or those of the node's database (serve) or
    of another node's API (lb)."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if extensions.functions is not None:
            found = await enter(opened_part(extensions.functions, object, settings))
            if not is_datastore(found):
                lookup = Lookup(cast(Catalog, found))
            elif isinstance(settings, ServeSettings):
                lookup = await enter(opened_database(found, settings, life, extensions))
            else:
                cached = open_cached_functions(found, ApiConfig.from_env(settings.env))
                lookup = Lookup(await enter(cached), listed=found, store=found)
        elif settings.functions is not None:
            lookup = Lookup.declared(settings.functions)
        elif isinstance(settings, ServeSettings):
            store = await enter(opened_store(settings, extensions))
            lookup = await enter(opened_database(store, settings, life, extensions))
        else:
            lookup = await enter(opened_remote(settings.node.runner_api_url, settings))
        api = [*extensions.api_listeners, *extensions.api_middleware]
        if api and not lookup.mounts:
            raise ConfigError(
                "api_listeners and api_middleware: this node has no API, as its functions are "
                "declared or looked up elsewhere"
            )
        yield lookup


@asynccontextmanager
async def opened_database(
    store: Datastore, settings: Settings, life: NodeLifetime, extensions: Extensions
) -> AsyncIterator[Lookup]:
    """The functions of the node's ``store``, and the API that changes them.

    A change through this node's API is seen by its next call; one that another node makes in the
    same database, after ``FN_LOOKUP_TTL``.
    """
    from ..agent import keep_stored_warm  # a load balancer has no agent

    async with AsyncExitStack() as stack:
        functions = await stack.enter_async_context(
            open_cached_functions(store, ApiConfig.from_env(settings.env))
        )
        changed = Signal()
        yield Lookup(
            functions,
            api_mount(store, settings, life, extensions, [_clearing(functions, changed)]),
            listed=store,
            store=store,
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
    store: Datastore,
    settings: Settings,
    life: NodeLifetime,
    extensions: Extensions,
    middleware: Sequence[Middleware] = (),
) -> dict[str, ASGIApp]:
    """``/v2`` over ``store``, with what the provider adds; ``middleware`` is outermost. Raises
    `ConfigError` for endpoints that are there twice."""
    from ..api import PREFIX, api_app

    try:
        app = api_app(
            store,
            config=settings.node,
            limits=StoreConfig.from_env(settings.env).limits,
            middleware=[*middleware, *extensions.api_middleware],
            listeners=extensions.api_listeners,
            endpoints=[each for each in extensions.endpoints if each.path.startswith(f"{PREFIX}/")],
            metrics=life.http_metrics,
        )
    except ValueError as error:
        raise ConfigError(f"endpoints: {error}") from error
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
