"""``hostler api``: the API of apps, functions and triggers, and no calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from ..tracing import open_tracer
from .function_lookup import api_mount, opened_store
from .lifetime import Node, NodeLifetime, ReadyLine
from .page import NodePage
from .parts import NodeHttp, listen
from .settings import take_machine_id


@attrs.frozen(kw_only=True)
class ApiNode(Node):
    """The API over a database."""

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[ReadyLine]:
        settings = self.settings
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await listen(stack, settings.bind)
            tracer = await enter(open_tracer(settings.node, "api"))
            store = await enter(opened_store(settings))
            page = NodePage("api", settings, life)
            page.show(functions=store)
            mounts = {**api_mount(store, settings, life), **page.mount(life.shutdown)}
            http = NodeHttp(settings, life, settings.bind, listeners, mounts, tracer)
            server = await enter(http.serve_mounts(life.shutdown))
            take_machine_id(server.addresses[0])
            yield {"node": "api", "http": server.addresses}
            life.shutdown.set()
