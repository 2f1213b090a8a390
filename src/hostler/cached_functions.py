"""Functions and triggers looked up elsewhere, and kept for a while.

One question at a time per thing, whoever asks; an answer is used for seconds; if asking fails, the
last answer is used for minutes. So an LB goes on serving what it has served while its API is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from ._concurrency.flight_cache import FlightCache
from ._concurrency.nurseries import open_background
from .config import ApiConfig
from .models import App, Fn, Trigger


class Lookups(Protocol):
    """The reads of a `hostler.datastore.Datastore` that calls need."""

    async def app_id_by_name(self, name: str) -> str: ...
    async def get_app(self, app_id: str) -> App: ...
    async def get_fn(self, fn_id: str) -> Fn: ...
    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger: ...


class CachedFunctions:
    """A `hostler.functions.Catalog` over `Lookups`; `open_cached_functions` makes it.

    What is not there is remembered too, for a shorter time, and apart from the rest, so that
    nobody can push functions out by asking for what does not exist. A question goes on while
    somebody waits for its answer, or has an old one that it would renew; who stops waiting does
    not end it for others.
    """

    def __init__(self, lookups: Lookups, nursery: trio.Nursery, config: ApiConfig) -> None:
        self._app_ids = FlightCache(lookups.app_id_by_name, nursery, config)
        self._apps = FlightCache(lookups.get_app, nursery, config)
        self._fns = FlightCache(lookups.get_fn, nursery, config)

        async def trigger(place: tuple[str, str]) -> Trigger:
            app_id, source = place
            return await lookups.trigger_by_source(app_id, "http", source)

        self._triggers = FlightCache(trigger, nursery, config)

    def __repr__(self) -> str:
        return f"<CachedFunctions apps={len(self._apps)} fns={len(self._fns)}>"

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Raises `FnNotFound`, `AppNotFound`, and what a look-up fails with if there is no
        answer that is young enough."""
        fn = await self._fns.get(fn_id)
        return await self._apps.get(fn.app_id), fn

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        """As `find`; also raises `TriggerNotFound`."""
        app = await self._apps.get(await self._app_ids.get(app_name))
        trigger = await self._triggers.get((app.id, source))
        return app, await self._fns.get(trigger.fn_id), trigger

    def clear(self) -> None:
        """Forget everything: something has changed. Questions under way are asked anew."""
        for cache in (self._app_ids, self._apps, self._fns, self._triggers):
            cache.clear()


@asynccontextmanager
async def open_cached_functions(
    lookups: Lookups, config: ApiConfig | None = None
) -> AsyncIterator[CachedFunctions]:
    """Leaving the block ends all questions; who still waits for one gets an error (503)."""
    async with open_background() as nursery:
        try:
            yield CachedFunctions(lookups, nursery, config or ApiConfig())
        finally:
            nursery.cancel_scope.cancel()
