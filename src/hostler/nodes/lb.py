"""``hostler lb``: front end and LB agent; the functions run on runners."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs

from .. import wire
from ..abc import PKIData, Placer
from ..bodies import BodyBudget
from ..config import BodyConfig, LBConfig, PlacerConfig, PoolConfig
from ..errors import ConfigError
from ..front import open_listeners
from ..functions import FunctionTable
from ..lb import ResourceUse, open_lb_agent
from ..pool import PLACERS, mtls_runner_factory, open_dns_pool
from ..tracing import PlaceSpans, open_tracer, traced_app
from .function_lookup import Lookup, opened_remote
from .lifetime import NodeLifetime
from .page import NodePage
from .parts import calls_app, following_tls, serving, tell_drain
from .settings import Settings, make_loaded, take_machine_id
from .workers import Place, open_colleagues


@attrs.frozen(kw_only=True)
class LBNode:
    """Front end and LB agent; the functions run on runners."""

    settings: Settings
    runners: Sequence[str]
    placer: str
    functions: FunctionTable | None
    """``None`` = those of the API that the settings name."""
    pki: PKIData | None
    cert_name: str
    place: Place | None = None
    """Among the workers of the node, if it has several."""

    async def __call__(self, life: NodeLifetime) -> None:
        env, place = self.settings.env, self.place
        placers, kept = PlacerConfig.from_env(env), BodyConfig.from_env(env)
        if place is not None:
            placers = place.part_of(placers, "max_waiting", "max_waiting_bytes")
            kept = place.part_of(kept, "body_memory", "body_disk")
        placer = make_placer(self.placer, placers)
        config = PoolConfig.from_env(env)
        bodies = BodyBudget(kept)
        before = ResourceUse.now()
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            colleagues = None if place is None else await enter(open_colleagues(place))
            page = NodePage("lb", self.settings, life, colleagues)
            listeners = (
                await enter(open_listeners(self.settings.bind))
                if place is None
                else place.open_listeners()
            )
            tracer = await enter(open_tracer(self.settings.node, "lb"))
            spans = [] if tracer is None else [PlaceSpans(tracer)]
            lookup = (
                await enter(opened_remote(self.settings.node.runner_api_url, self.settings))
                if self.functions is None
                else Lookup.declared(self.functions)
            )
            loop = await enter(wire.open_loop())
            interval = config.tls_reload_interval
            tls = await enter(following_tls(self.pki, wire.client_tls, interval))
            pool = await enter(
                open_dns_pool(
                    self.runners,
                    config=config,
                    factory=mtls_runner_factory(loop, config=config, tls=tls) if tls else None,
                    loop=loop,
                    pki=self.pki,
                    cert_common_name=self.cert_name,
                )
            )
            agent = await enter(
                open_lb_agent(
                    pool,
                    placer,
                    config=LBConfig.from_env(env),
                    call_overrider=self.settings.overrider,
                    listeners=[*page.listeners, *spans],
                    bodies=bodies,
                    grace=self.settings.grace,
                )
            )
            page.show(lb=agent, pool=pool, functions=lookup.listed)
            tells = place is None or place.number == 0
            app = calls_app(
                agent, lookup, self.settings, life, page, bodies, listeners, tells=tells
            )
            app = traced_app(app, tracer)
            server = await enter(serving(app, listeners, self.settings, life.shutdown))
            if place is None:  # the ids of workers must not be those of each other
                take_machine_id(server.addresses[0])
            life.announce("lb", {"http": server.addresses, "runners": list(self.runners)})
            await life.shutdown.wait()
            agent.begin_drain(self.settings.grace)
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
        raise ConfigError(f"--placer {name!r}: made a {type(placer).__name__}, which is no Placer")
    return placer
