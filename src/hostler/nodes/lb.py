"""``hostler lb``: front end and LB agent; the functions run on runners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from .. import wire
from ..abc import PKIData, Placer
from ..bodies import BodyBudget
from ..config import BodyConfig, LBConfig, PlacerConfig, PoolConfig
from ..errors import ConfigError
from ..functions import FunctionTable
from ..lb import ResourceUse, open_lb_agent
from ..pool import PLACERS, RunnerAccess, mtls_runner_factory, open_dns_pool
from ..tracing import PlaceSpans, open_tracer
from .function_lookup import Lookup, opened_remote
from .lifetime import Node, NodeLifetime, ReadyLine
from .page import NodePage
from .parts import NodeHttp, following_tls, listen, tell_drain
from .settings import make_loaded, take_machine_id
from .workers import Place, open_peers


@attrs.frozen(kw_only=True)
class LBNode(Node):
    """Front end and LB agent; the functions run on runners."""

    functions: FunctionTable | None
    """``None`` = those of the API that the settings name."""
    pki: PKIData | None = None
    cert_name: str = ""
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[ReadyLine]:
        settings, place = self.settings, self.place
        env, node = settings.env, settings.node
        placers, kept = PlacerConfig.from_env(env), BodyConfig.from_env(env)
        if place is not None:
            placers = place.part_of(placers, "max_waiting", "max_waiting_bytes")
            kept = place.part_of(kept, "body_memory", "body_disk")
        placer = make_placer(node.placer, placers)
        config = PoolConfig.from_env(env)
        bodies = BodyBudget(kept)
        before = ResourceUse.now()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            peers = None if place is None else await enter(open_peers(place))
            page = NodePage("lb", settings, life, peers)
            listeners = await listen(stack, settings.bind, place)
            tracer = await enter(open_tracer(node, "lb"))
            if self.functions is None:
                lookup = await enter(opened_remote(node.runner_api_url, settings))
            else:
                lookup = Lookup.declared(self.functions)
            loop = await enter(wire.open_loop())
            tls = await enter(following_tls(self.pki, wire.client_tls, config.tls_reload_interval))
            pool = await enter(
                open_dns_pool(
                    node.runner_addresses,
                    config=config,
                    access=RunnerAccess(
                        factory=mtls_runner_factory(loop, config=config, tls=tls) if tls else None,
                        loop=loop,
                        pki=self.pki,
                        cert_common_name=self.cert_name,
                    ),
                )
            )
            agent = await enter(
                open_lb_agent(
                    pool,
                    placer,
                    config=LBConfig.from_env(env),
                    call_overrider=settings.overrider,
                    listeners=[*page.listeners, *([PlaceSpans(tracer)] if tracer else [])],
                    bodies=bodies,
                    grace=settings.grace,
                )
            )
            page.show(lb=agent, pool=pool, functions=lookup.listed)
            mounts = {**lookup.mounts, **page.mount(life.shutdown)}
            http = NodeHttp(settings, life, settings.bind, listeners, mounts, tracer, place)
            server = await enter(http.serve_calls(agent, lookup, bodies))
            if place is None:  # the ids of workers must not be those of each other
                take_machine_id(server.addresses[0])
            runners = list(node.runner_addresses)
            yield {"node": "lb", "http": server.addresses, "runners": runners}
            life.shutdown.set()
            agent.begin_drain(settings.grace)
        assert agent.drain_report is not None
        tell_drain(agent.drain_report, before)


def make_placer(name: str, config: PlacerConfig) -> Placer:
    """Raises `ConfigError`."""
    if name in PLACERS:
        return PLACERS[name](config)
    if ":" not in name:
        raise ConfigError(f"--placer {name!r}: takes {', '.join(PLACERS)} or module:attribute")
    placer = make_loaded(name, "--placer", config)
    if not isinstance(placer, Placer):
        made = type(placer).__name__
        raise ConfigError(f"--placer {name!r}: must return a Placer, not a {made}")
    return placer
