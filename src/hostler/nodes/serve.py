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
from .function_lookup import Lookup, opened_database
from .lifetime import Node, NodeLifetime, ReadyLine
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
from .settings import take_machine_id


@attrs.frozen(kw_only=True)
class ServeNode(Node):
    """Front end and agent in one process, and the API unless functions are declared."""

    driver: str
    functions: FunctionTable | None
    """``None`` = those of the node's database."""
    insecure: bool = False

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[ReadyLine]:
        settings, declared = self.settings, self.functions
        config = AgentConfig.from_env(settings.env)
        page, tail = NodePage("full", settings, life), Tail(settings)
        bodies = BodyBudget(BodyConfig.from_env(settings.env))
        before = ResourceUse.now()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await listen(stack, settings.bind)
            tracer = await enter(open_tracer(settings.node, "full"))
            name = self._choose_driver()
            if declared is None:
                lookup = await enter(opened_database(settings, life))
            else:
                lookup = Lookup.declared(declared)
            driver = await enter(opened_driver(name, config, settings))
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    keep_alive=keep_alive_of(config),
                    call_overrider=settings.overrider,
                    listeners=[*page.listeners, *([RunSpans(tracer)] if tracer else [])],
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
            http = NodeHttp(settings, life, settings.bind, listeners, mounts, tracer)
            server = await enter(http.serve_calls(agent, lookup, bodies))
            take_machine_id(server.addresses[0])
            yield {"node": "serve", "http": server.addresses, "driver": name}
            # Requests that were accepted get their calls; the agent closes after the front end.
            began, counts = trio.current_time(), agent.statistics()
            life.shutdown.set()
            agent.begin_drain()
        after = agent.statistics()
        left = after.queued + after.running
        seconds = trio.current_time() - began
        tell_drain(report_of(counts, after, seconds=seconds, tasks=left), before)

    def _choose_driver(self) -> str:
        """Raises `ConfigError` for one that others must not reach."""
        bind, node = self.settings.bind, self.settings.node
        name = choose_driver(self.driver, bind)
        tokens, setting = (
            (node.api_token, "FN_API_TOKEN")
            if self.functions is None
            else (node.invoke_token, "FN_INVOKE_TOKEN")
        )
        check_reach(name, bind, protected=bool(tokens), by=setting, insecure=self.insecure)
        return name
