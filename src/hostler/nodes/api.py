"""``hostler api``: the API of apps, functions and triggers, and no calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from ..tracing import open_tracer
from .extensions import RunningNode, open_startup
from .function_lookup import api_mount, opened_store
from .lifetime import Node, NodeLifetime
from .page import NodePage
from .parts import NodeHttp, listen
from .settings import ApiSettings, take_machine_id


@attrs.frozen(kw_only=True)
class ApiNode(Node):
    """The API over a database."""

    settings: ApiSettings

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        settings, extensions = self.settings, self.extensions
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await listen(stack, settings.bind)
            tracer = await enter(open_tracer(settings.node, "api"))
            store = await enter(opened_store(settings, extensions))
            startup = await enter(open_startup(extensions.startup, life.shutdown))
            page = NodePage("api", settings, life)
            page.show(functions=store)
            mounts = {
                **api_mount(store, settings, life, extensions),
                **page.mount(life.shutdown),
            }
            http = NodeHttp(
                settings,
                life,
                settings.bind,
                listeners,
                mounts,
                tracer,
                extensions=extensions,
                store=store,
            )
            running = RunningNode(kind="api", http=http.addresses, functions=store)
            await startup.run(running)
            server = await enter(http.serve_mounts(life.shutdown))
            take_machine_id(server.addresses[0])
            yield running
            life.shutdown.set()
