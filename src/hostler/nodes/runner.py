"""``hostler runner``: an agent that load balancers reach over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import structlog
import trio

from .. import wire
from ..agent import Resources, open_agent
from ..bodies import BodyBudget, BodyMetrics
from ..config import AUTO, AgentConfig, BodyConfig, LBConfig, PoolConfig, RunnerConfig
from ..errors import ConfigError
from ..front import open_listeners
from ..runner import FunctionLogs, Hooks, RunnerOptions, StatusChecks, open_pure_runner
from ..tracing import RunSpans, open_tracer
from .extensions import RunningNode, open_startup
from .lifetime import Node, NodeLifetime
from .page import NodePage, Tail
from .parts import (
    NodeHttp,
    check_runner,
    following_tls,
    is_first,
    is_loopback_bind,
    keep_alive_of,
    listen,
    opened_driver,
)
from .settings import RunnerSettings, take_machine_id
from .workers import Place, open_peers

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class RunnerNode(Node):
    """An agent that LBs reach over gRPC."""

    settings: RunnerSettings
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    def __attrs_post_init__(self) -> None:
        check_runner(self.settings, self.extensions)

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        settings, extensions, place = self.settings, self.extensions, self.place
        config = AgentConfig.from_env(settings.env, enable_nb_resource_tracker=AUTO)
        offer = RunnerConfig.from_env(settings.env)
        interval = PoolConfig.from_env(settings.env).tls_reload_interval
        if offer.tls_client_names and settings.pki is None:
            raise ConfigError("FN_TLS_CLIENT_NAMES needs --tls-ca, --tls-cert and --tls-key")
        kept = BodyConfig.from_env(settings.env)
        if place is not None:
            kept = place.part_of(kept, "body_memory", "body_disk")
        bodies = BodyBudget(kept)
        bind, for_driver, total, sharers = settings.bind, config, None, 1
        if place is not None and (part := place.part) is not None:
            config = part.agent_config(config)
            bind, for_driver = part.bind, part.labelled(config)
            total, sharers = Resources(part.memory, part.cpus), part.count
        logs = FunctionLogs() if settings.stream_logs else None
        running = RunningNode(kind="runner")
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            tls = await enter(following_tls(settings.pki, wire.server_tls, interval))
            # A taken port is to be found out before an engine is bothered.
            async with open_listeners(bind):
                pass
            peers = None if place is None else await enter(open_peers(place))
            page = NodePage("runner", settings, life, peers)
            tail = Tail(settings, peers)
            if settings.http_bind:
                listeners = await listen(stack, settings.http_bind, place, "--http-bind")
                # It takes no calls, and is asked for metrics and readiness during the drain too.
                drained = trio.Event()
                http = NodeHttp(
                    settings,
                    life,
                    settings.http_bind,
                    listeners,
                    {**page.mount(drained), **tail.mount(drained)},
                    place=place,
                    extensions=extensions,
                )
                server = await enter(http.serve_mounts(drained))
                stack.callback(drained.set)
                running.http = server.addresses
            tracer = await enter(open_tracer(settings.node, "runner"))
            loop = await enter(wire.open_loop())
            BodyMetrics(life.registry, bodies)
            startup = await enter(open_startup(extensions.startup, life.shutdown))
            driver = await enter(
                opened_driver(settings.driver, for_driver, settings, extensions, peers)
            )
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    total=total,
                    sharers=sharers,
                    keep_alive=keep_alive_of(config, extensions),
                    call_overrider=extensions.overrider,
                    call_options=extensions.call_options,
                    listeners=[
                        *page.listeners,
                        *([RunSpans(tracer)] if tracer else []),
                        *extensions.call_listeners,
                    ],
                    output=tail.sink(logs.collect if logs is not None else None),
                    debug_logs=settings.node.logs_debug,
                    grace=settings.grace,
                )
            )
            page.show(agent=agent)
            running.agent = agent
            await startup.run(running)
            options = RunnerOptions(
                detached=settings.detached,
                bodies=bodies,
                max_detached_body=LBConfig.from_env(settings.env).max_detached_body,
                checks=StatusChecks(image=settings.status_image, barrier=settings.network_barrier),
                hooks=extensions.hooks or Hooks(),
                logs=logs,
            )
            runner = await enter(
                open_pure_runner(
                    agent,
                    bind,
                    options,
                    loop=loop,
                    ssl_context=tls,
                    client_names=offer.tls_client_names,
                    keepalive=wire.Keepalive(
                        interval=offer.runner_keepalive_interval,
                        timeout=offer.runner_keepalive_timeout,
                        vanished=offer.runner_vanished_timeout,
                    ),
                    grace=settings.grace,
                    multiplex_calls=offer.multiplex_calls,
                )
            )
            running.grpc = runner.address
            if is_first(place) and settings.pki is None and not is_loopback_bind(bind):
                log.warning(
                    "anyone who reaches this runner can make it run anything: it asks for no "
                    "certificate",
                    listens=runner.address,
                    options="--tls-ca, --tls-cert, --tls-key",
                )
            take_machine_id(runner.address)
            yield running
            life.shutdown.set()
