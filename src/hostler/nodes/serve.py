"""A single-process node: front end and agent, detached calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import structlog
import trio

from .._concurrency.drain import DrainBudget
from .._concurrency.nurseries import open_background
from ..abc import CallAgent, CallListener, RunnerAgent
from ..agent import keep_declared_warm, open_agent
from ..bodies import BodyBudget, keep_whole
from ..call import AckWriter, CallOption, PendingCall
from ..config import AgentConfig, BodyConfig, LBConfig
from ..errors import APIError
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
                    grace=settings.grace,
                )
            )
            if lookup.keep_warm is not None:
                warming = await enter(open_background())
                stack.callback(warming.cancel_scope.cancel)
                warming.start_soon(lookup.keep_warm, agent)
            limit = LBConfig.from_env(settings.env).max_detached_body
            detaching = await enter(
                open_detaching(agent, body_limit=limit, bodies=bodies, grace=settings.grace)
            )
            page.show(agent=agent, functions=lookup.listed)
            mounts = {**lookup.mounts, **page.mount(life.shutdown), **tail.mount(life.shutdown)}
            http = NodeHttp(settings, life, settings.bind, listeners, mounts, tracer)
            server = await enter(http.serve_calls(detaching, lookup, bodies))
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


log = structlog.get_logger(__name__)


class DetachingAgent(CallAgent):
    """Lets the submitter of a detached call go once the call has a container.

    All else is the inner agent's. Until then the call is a part of the submitter's task: errors
    are raised there, and cancelling it cancels the call.
    """

    def __init__(
        self, inner: RunnerAgent, nursery: trio.Nursery, body_limit: int, bodies: BodyBudget
    ) -> None:
        self._inner = inner
        self._nursery = nursery
        self._body_limit = body_limit
        self._bodies = bodies
        inner.add_listener(_Acknowledge())

    @property
    def detached(self) -> int:
        """Calls that run on though their clients were let go."""
        return len(self._nursery.child_tasks)

    def get_call(self, *options: CallOption) -> PendingCall:
        return self._inner.get_call(*options)

    async def submit(self, call: PendingCall) -> None:
        if call.model.type != "detached":
            await self._inner.submit(call)
            return
        await self._nursery.start(self._keep_and_run, call)

    async def _keep_and_run(self, call: PendingCall, *, task_status: trio.TaskStatus[None]) -> None:
        # The body has to outlive the request.
        call.body = body = await keep_whole(call.body, self._bodies, self._body_limit)
        try:
            await self._run(call, task_status)
        finally:
            await body.aclose()

    async def _run(self, call: PendingCall, task_status: trio.TaskStatus[None]) -> None:
        call.writer = writer = AckWriter(task_status)
        try:
            await self._inner.submit(call)
            writer.acknowledge()  # of an agent that does not tell its listeners
        except Exception as error:
            if not writer.acknowledged:
                raise
            _log_late_failure(call.model.id, error)


def _log_late_failure(call_id: str, error: Exception) -> None:
    """The client has its 202: nobody else learns of it."""
    if isinstance(error, APIError):
        log.warning("detached call failed", call_id=call_id, reason=str(error))
    else:
        log.error("detached call failed", call_id=call_id, exc_info=error)


class _Acknowledge(CallListener):
    def wants_before_call(self, call: PendingCall) -> bool:
        return isinstance(call.writer, AckWriter)

    async def before_call(self, call: PendingCall) -> None:
        if isinstance(call.writer, AckWriter):
            call.writer.acknowledge()


@asynccontextmanager
async def open_detaching(
    inner: RunnerAgent,
    *,
    body_limit: int,
    grace: float | DrainBudget,
    bodies: BodyBudget | None = None,
) -> AsyncIterator[DetachingAgent]:
    """``body_limit`` in bytes, for one detached call; ``bodies`` is to be the front end's.

    Leaving the block gives detached calls ``grace`` seconds to end; left by an exception or a
    cancellation there is no grace.
    """
    async with trio.open_nursery() as nursery:
        yield DetachingAgent(inner, nursery, body_limit, bodies or BodyBudget())
        nursery.cancel_scope.deadline = DrainBudget.of(grace).deadline()
