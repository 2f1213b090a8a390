"""``hostler lb``: front end and LB agent; the functions run on runners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from .. import wire
from ..abc import Placer, RunnerPool
from ..bodies import BodyBudget
from ..config import BodyConfig, LBConfig, PlacerConfig, PoolConfig
from ..errors import ConfigError
from ..lb import ResourceUse, open_lb_agent
from ..pool import PLACERS, DynamicPool, RunnerAccess, mtls_runner_factory, open_dns_pool
from ..tracing import PlaceSpans, open_tracer
from .extensions import Extensions, RunningNode, check_lb, open_startup, opened_part, wrong
from .function_lookup import opened_lookup
from .lifetime import Node, NodeLifetime
from .page import NodePage
from .parts import NodeHttp, following_tls, listen, tell_drain
from .settings import LBSettings, take_machine_id
from .workers import Place, open_peers


@attrs.frozen(kw_only=True)
class LBNode(Node):
    """Front end and LB agent; the functions run on runners."""

    settings: LBSettings
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    def __attrs_post_init__(self) -> None:
        check_lb(self.settings, self.extensions)

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        settings, extensions, place = self.settings, self.extensions, self.place
        env, node = settings.env, settings.node
        placers, kept = PlacerConfig.from_env(env), BodyConfig.from_env(env)
        if place is not None:
            placers = place.part_of(placers, "max_waiting", "max_waiting_bytes")
            kept = place.part_of(kept, "body_memory", "body_disk")
        placer = make_placer(node.placer, placers, extensions)
        bodies = BodyBudget(kept)
        before = ResourceUse.now() if life.alone else None
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            peers = None if place is None else await enter(open_peers(place))
            page = NodePage("lb", settings, life, peers)
            listeners = await listen(stack, settings.bind, place)
            tracer = await enter(open_tracer(node, "lb"))
            lookup = await enter(opened_lookup(settings, life, extensions))
            startup = await enter(open_startup(extensions.startup, life.shutdown))
            pool = await enter(self._open_pool())
            agent = await enter(
                open_lb_agent(
                    pool,
                    placer,
                    config=LBConfig.from_env(env),
                    call_overrider=extensions.overrider,
                    call_options=extensions.call_options,
                    listeners=[
                        *page.listeners,
                        *([PlaceSpans(tracer)] if tracer else []),
                        *extensions.call_listeners,
                    ],
                    bodies=bodies,
                    grace=settings.grace,
                )
            )
            life.check = pool.check_reachable
            page.show(
                lb=agent,
                pool=pool if isinstance(pool, DynamicPool) else None,
                functions=lookup.listed,
            )
            mounts = {**lookup.mounts, **page.mount(life.shutdown)}
            http = NodeHttp(
                settings,
                life,
                settings.bind,
                listeners,
                mounts,
                tracer,
                place,
                extensions,
                lookup.store,
            )
            running = RunningNode(
                kind="lb",
                http=http.addresses,
                agent=agent,
                pool=pool,
                functions=lookup.catalog,
                told={"runners": list(node.runner_addresses)},
            )
            await startup.run(running)
            server = await enter(http.serve_calls(agent, lookup, bodies))
            if place is None:  # the ids of workers must not be those of each other
                take_machine_id(server.addresses[0])
            yield running
            life.shutdown.set()
            agent.begin_drain(settings.grace)
        assert agent.drain_report is not None
        tell_drain(agent.drain_report, before)

    @asynccontextmanager
    async def _open_pool(self) -> AsyncIterator[RunnerPool]:
        """The provider's pool, or one over the runners that the settings name."""
        settings, pki = self.settings, self.settings.pki
        config = PoolConfig.from_env(settings.env)
        if self.extensions.pool is not None:
            async with opened_part(self.extensions.pool, RunnerPool, config) as own:
                yield own
            return
        async with (
            wire.open_loop() as loop,
            following_tls(pki, wire.client_tls, config.tls_reload_interval) as tls,
            open_dns_pool(
                settings.node.runner_addresses,
                config=config,
                access=RunnerAccess(
                    factory=mtls_runner_factory(loop, config=config, tls=tls) if tls else None,
                    loop=loop,
                    pki=pki,
                    cert_common_name=settings.tls_name,
                ),
            ) as pool,
        ):
            yield pool


def make_placer(name: str, config: PlacerConfig, extensions: Extensions) -> Placer:
    """The provider's, or the one of that ``name``. Raises `ConfigError`."""
    if extensions.placer is not None:
        placer = extensions.placer(config)
        if not isinstance(placer, Placer):
            raise wrong(extensions.placer, "Placer", placer)
        return placer
    if name not in PLACERS:
        raise ConfigError(f"--placer {name!r}: takes {', '.join(PLACERS)} or module:attribute")
    return PLACERS[name](config)
