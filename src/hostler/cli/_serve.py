"""``hostler serve``: front end and agent in one process."""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs
import trio

from hostler._concurrency.nurseries import open_background
from hostler.agent import keep_declared_warm, open_agent
from hostler.bodies import BodyBudget
from hostler.config import AgentConfig, BodyConfig, LBConfig
from hostler.front import open_listeners
from hostler.functions import FunctionTable
from hostler.lb import Footprint, report_of
from hostler.tracing import open_tracer, traced_app, traced_runner

from ._catalog import Lookup, opened_database
from ._detaching import open_detaching
from ._engine import check_reach, choose_driver
from ._life import Life
from ._machine_id import take_machine_id
from ._page import Page
from ._parts import calls_app, keep_alive_of, opened_driver, serving, tell_drain
from ._settings import Settings
from ._tail import Tail


@attrs.frozen(kw_only=True)
class ServeNode:
    """Front end and agent in one process, and the API unless functions are declared."""

    settings: Settings
    driver: str
    functions: FunctionTable | None
    """``None`` = those of the node's database."""
    insecure: bool = False

    async def __call__(self, life: Life) -> None:
        config = AgentConfig.from_env(self.settings.env)
        page = Page("full", self.settings, life)
        tail = Tail(self.settings)
        bodies = BodyBudget(BodyConfig.from_env(self.settings.env))
        before = Footprint.now()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            listeners = await enter(open_listeners(self.settings.bind))
            tracer = await enter(open_tracer(self.settings.node, "full"))
            declared = self.functions
            name = choose_driver(self.driver, self.settings.bind)
            node = self.settings.node
            check_reach(
                name,
                self.settings.bind,
                protected=bool(node.api_token if declared is None else node.invoke_token),
                by="FN_API_TOKEN" if declared is None else "FN_INVOKE_TOKEN",
                insecure=self.insecure,
            )
            lookup = (
                await enter(opened_database(self.settings))
                if declared is None
                else Lookup.declared(declared)
            )
            driver = await enter(opened_driver(name, config, self.settings))
            startup = [] if declared is None else [keep_declared_warm(declared)]
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    keep_alive=keep_alive_of(config),
                    call_overrider=self.settings.overrider,
                    listeners=page.listeners,
                    startup=startup,
                    output=tail.sink(),
                    debug_logs=self.settings.node.logs_debug,
                    grace=self.settings.grace,
                )
            )
            if lookup.keep_warm is not None:
                warming = await enter(open_background())
                stack.callback(warming.cancel_scope.cancel)
                warming.start_soon(lookup.keep_warm, agent)
            detaching = await enter(
                open_detaching(
                    traced_runner(agent, tracer),
                    body_limit=LBConfig.from_env(self.settings.env).max_detached_body,
                    bodies=bodies,
                    grace=self.settings.grace,
                )
            )
            page.show(agent=agent, lister=lookup.lister)
            app = calls_app(detaching, lookup, self.settings, life, page, bodies, listeners, tail)
            app = traced_app(app, tracer)
            server = await enter(serving(app, listeners, self.settings, life.shutdown))
            take_machine_id(server.addresses[0])
            life.announce("serve", {"http": server.addresses, "driver": name})
            await life.shutdown.wait()
            # Requests that were accepted get their calls; the agent closes after the front end.
            began, counts = trio.current_time(), agent.statistics()
            agent.begin_drain()
        after = agent.statistics()
        left = after.queued + after.running
        seconds = trio.current_time() - began
        tell_drain(report_of(counts, after, seconds=seconds, tasks=left), before)
