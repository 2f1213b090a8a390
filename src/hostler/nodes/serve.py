"""A single-process node: front end and agent, detached calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from .._concurrency.nurseries import open_background
from ..agent import keep_declared_warm, open_agent
from ..bodies import BodyBudget
from ..config import AgentConfig, BodyConfig, LBConfig
from ..functions import FunctionTable
from ..lb import ResourceUse, report_of
from ..tracing import RunSpans, open_tracer
from .extensions import RunningNode, open_startup
from .function_lookup import opened_lookup
from .lifetime import Node, NodeLifetime
from .page import NodePage, Tail
from .parts import (
    NodeHttp,
    check_reach,
    choose_driver,
    keep_alive_of,
    listen,
    opened_driver,
    tell_drain,
)
from .settings import ServeSettings, take_machine_id


@attrs.frozen(kw_only=True)
class ServeNode(Node):
    """Front end and agent in one process, and the API unless functions are declared."""

    settings: ServeSettings

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        settings, extensions = self.settings, self.extensions
        config = AgentConfig.from_env(settings.env)
        page, tail = NodePage("full", settings, life), Tail(settings)
        bodies = BodyBudget(BodyConfig.from_env(settings.env))
        before = ResourceUse.now() if life.alone else None
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await listen(stack, settings.bind)
            tracer = await enter(open_tracer(settings.node, "full"))
            name = self._choose_driver()
            lookup = await enter(opened_lookup(settings, life, extensions))
            startup = await enter(open_startup(extensions.startup, life.shutdown))
            driver = await enter(opened_driver(name, config, settings, extensions))
            declared = lookup.listed if isinstance(lookup.listed, FunctionTable) else None
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    keep_alive=keep_alive_of(config, extensions),
                    call_overrider=extensions.overrider,
                    call_options=extensions.call_options,
                    listeners=[
                        *page.listeners,
                        *([RunSpans(tracer)] if tracer else []),
                        *extensions.call_listeners,
                    ],
                    startup=[] if declared is None else [keep_declared_warm(declared)],
                    output=tail.sink(),
                    debug_logs=settings.node.logs_debug,
                    bodies=bodies,
                    max_detached_body=LBConfig.from_env(settings.env).max_detached_body,
                    grace=settings.grace,
                )
            )
            if lookup.keep_warm is not None:
                warming = await enter(open_background())
                stack.callback(warming.cancel_scope.cancel)
                warming.start_soon(lookup.keep_warm, agent)
            page.show(agent=agent, functions=lookup.listed)
            mounts = {**lookup.mounts, **page.mount(life.shutdown), **tail.mount(life.shutdown)}
            http = NodeHttp(
                settings,
                life,
                settings.bind,
                listeners,
                mounts,
                tracer,
                extensions=extensions,
                store=lookup.store,
            )
            running = RunningNode(
                kind="serve",
                http=http.addresses,
                agent=agent,
                functions=lookup.store or lookup.catalog,
                told={"driver": name},
            )
            await startup.run(running)
            server = await enter(http.serve_calls(agent, lookup, bodies))
            take_machine_id(server.addresses[0])
            yield running
            # Requests that were accepted get their calls; the agent closes after the front end.
            began, counts = trio.current_time(), agent.statistics()
            life.shutdown.set()
            agent.begin_drain()
        after = agent.statistics()
        left = after.queued + after.running
        seconds = trio.current_time() - began
        tell_drain(report_of(counts, after, seconds=seconds, tasks=left), before)

    def _choose_driver(self) -> str:
        """Its name. Raises `ConfigError` for one that others must not reach."""
        settings, node = self.settings, self.settings.node
        if self.extensions.driver is not None:
            return settings.driver if ":" in settings.driver else "extension"
        name = choose_driver(settings.driver, settings.bind)
        has_api = settings.functions is None and self.extensions.functions is None
        tokens, setting = (
            (node.api_token, "FN_API_TOKEN") if has_api else (node.invoke_token, "FN_INVOKE_TOKEN")
        )
        check_reach(
            name, settings.bind, protected=bool(tokens), by=setting, insecure=settings.insecure
        )
        return name
