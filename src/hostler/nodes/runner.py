"""``hostler runner``: an agent that load balancers reach over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import structlog
import trio

from .. import wire
from ..abc import PKIData
from ..agent import Resources, open_agent
from ..bodies import BodyBudget, BodyMetrics
from ..config import AUTO, AgentConfig, BodyConfig, LBConfig, PoolConfig, RunnerConfig
from ..errors import ConfigError
from ..front import open_listeners
from ..runner import FunctionLogs, Hooks, RunnerOptions, StatusChecks, open_pure_runner
from ..tracing import RunSpans, open_tracer
from .lifetime import Node, NodeLifetime, ReadyLine
from .page import NodePage, Tail
from .parts import (
    NodeHttp,
    following_tls,
    is_first,
    is_loopback_bind,
    keep_alive_of,
    listen,
    opened_driver,
)
from .settings import make_loaded, take_machine_id
from .workers import Place, open_peers

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class RunnerNode(Node):
    """An agent that LBs reach over gRPC."""

    driver: str
    http_bind: str | None
    detached: bool
    checks: StatusChecks
    stream_logs: bool
    hooks: str
    pki: PKIData | None
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[ReadyLine]:
        config = AgentConfig.from_env(self.settings.env, enable_nb_resource_tracker=AUTO)
        offer = RunnerConfig.from_env(self.settings.env)
        interval = PoolConfig.from_env(self.settings.env).tls_reload_interval
        if offer.tls_client_names and self.pki is None:
            raise ConfigError("FN_TLS_CLIENT_NAMES needs --tls-ca, --tls-cert and --tls-key")
        hooks = self._hooks()
        kept = BodyConfig.from_env(self.settings.env)
        max_detached_body = LBConfig.from_env(self.settings.env).max_detached_body
        if self.place is not None:
            kept = self.place.part_of(kept, "body_memory", "body_disk")
        bodies = BodyBudget(kept)
        bind, for_driver, total, sharers = self.settings.bind, config, None, 1
        if self.place is not None and (part := self.place.part) is not None:
            config = part.agent_config(config)
            bind, for_driver = part.bind, part.labelled(config)
            total, sharers = Resources(part.memory, part.cpus), part.count
        logs = FunctionLogs() if self.stream_logs else None
        addresses: dict[str, object] = {"node": "runner"}
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            tls = await enter(following_tls(self.pki, wire.server_tls, interval))
            # A taken port is to be found out before an engine is bothered.
            async with open_listeners(bind):
                pass
            peers = None if self.place is None else await enter(open_peers(self.place))
            page = NodePage("runner", self.settings, life, peers)
            tail = Tail(self.settings, peers)
            if self.http_bind:
                listeners = await listen(stack, self.http_bind, self.place, "--http-bind")
                # It takes no calls, and is asked for metrics and readiness during the drain too.
                drained = trio.Event()
                http = NodeHttp(
                    self.settings,
                    life,
                    self.http_bind,
                    listeners,
                    {**page.mount(drained), **tail.mount(drained)},
                    place=self.place,
                )
                server = await enter(http.serve_mounts(drained))
                stack.callback(drained.set)
                addresses["http"] = server.addresses
            tracer = await enter(open_tracer(self.settings.node, "runner"))
            loop = await enter(wire.open_loop())
            stack.callback(life.registry.unregister, BodyMetrics(life.registry, bodies))
            driver = await enter(opened_driver(self.driver, for_driver, self.settings, peers))
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    total=total,
                    sharers=sharers,
                    keep_alive=keep_alive_of(config),
                    call_overrider=self.settings.overrider,
                    listeners=[*page.listeners, *([RunSpans(tracer)] if tracer else [])],
                    output=tail.sink(logs.collect if logs is not None else None),
                    debug_logs=self.settings.node.logs_debug,
                    grace=self.settings.grace,
                )
            )
            page.show(agent=agent)
            runner = await enter(
                open_pure_runner(
                    agent,
                    bind,
                    RunnerOptions(
                        detached=self.detached,
                        bodies=bodies,
                        max_detached_body=max_detached_body,
                        checks=self.checks,
                        hooks=hooks,
                        logs=logs,
                    ),
                    loop=loop,
                    ssl_context=tls,
                    client_names=offer.tls_client_names,
                    keepalive=wire.Keepalive(
                        interval=offer.runner_keepalive_interval,
                        timeout=offer.runner_keepalive_timeout,
                        vanished=offer.runner_vanished_timeout,
                    ),
                    grace=self.settings.grace,
                    multiplex_calls=offer.multiplex_calls,
                )
            )
            addresses["grpc"] = runner.address
            if is_first(self.place) and self.pki is None and not is_loopback_bind(bind):
                log.warning(
                    "anyone who reaches this runner can make it run anything: it asks for no "
                    "certificate",
                    listens=runner.address,
                    options="--tls-ca, --tls-cert, --tls-key",
                )
            take_machine_id(runner.address)
            yield addresses
            life.shutdown.set()

    def _hooks(self) -> Hooks:
        if not self.hooks:
            return Hooks()
        hooks = make_loaded(self.hooks, "--hooks")
        if not isinstance(hooks, Hooks):
            raise ConfigError(
                f"--hooks {self.hooks!r}: must return hostler.runner.Hooks, "
                f"not a {type(hooks).__name__}"
            )
        return hooks
