"""``hostler api``: the API of apps, functions and triggers, and no calls."""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs

from ..front import node_app, open_listeners
from ..tracing import open_tracer, traced_app
from .function_lookup import api_mount, opened_store
from .lifetime import NodeLifetime
from .page import NodePage
from .parts import guarded, serving
from .settings import Settings, take_machine_id


@attrs.frozen(kw_only=True)
class ApiNode:
    """The API over a database."""

    settings: Settings

    async def __call__(self, life: NodeLifetime) -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await enter(open_listeners(self.settings.bind))
            tracer = await enter(open_tracer(self.settings.node, "api"))
            store = await enter(opened_store(self.settings))
            page = NodePage("api", self.settings, life)
            page.show(functions=store)
            mounts = {**api_mount(store, self.settings), **page.mount(life.shutdown)}
            app = node_app(mounts=mounts, registry=life.registry, ready=life.is_ready)
            app = traced_app(guarded(app, self.settings, listeners, mounts), tracer)
            server = await enter(serving(app, listeners, self.settings, life.shutdown))
            take_machine_id(server.addresses[0])
            life.announce("api", {"http": server.addresses})
            await life.shutdown.wait()
