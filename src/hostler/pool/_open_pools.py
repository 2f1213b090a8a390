"""Opening pools whose runners change."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from .. import wire
from .._concurrency.nurseries import open_background
from ..abc import MTLSRunnerFactory, PKIData, Runner
from ..config import PoolConfig
from ._discovery import Discovery
from ._dynamic import DynamicPool
from ._metrics import PoolMetrics, default_pool_metrics
from ._static import CLOSE_GRACE, mtls_runner_factory
from ._targets import FixedTarget, Target, parse_targets

if TYPE_CHECKING:
    from ._dns import Resolver

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_dynamic_pool(
    addresses: Iterable[str] = (),
    *,
    config: PoolConfig | None = None,
    factory: MTLSRunnerFactory | None = None,
    loop: wire.Loop | None = None,
    pki: PKIData | None = None,
    cert_common_name: str = "",
    grace: float = CLOSE_GRACE,
    metrics: PoolMetrics | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[DynamicPool]:
    """A pool whose runners are judged, and can be changed at any time by ``pool.update``.

    ``factory`` makes the runners; by default `mtls_runner_factory` over ``loop``, or over the
    loop that is found or opened, with TLS files that are followed. Without ``pki`` runners are
    reached in plaintext, with a warning. ``rng`` is where jitter comes from; tests give a seeded
    one. Raises `ConfigError` for a bad address or bad PEM files.

    Leaving the block refuses new attempts and gives the running ones ``grace`` seconds; left by
    an exception or a cancellation there is no grace.
    """
    config = config or PoolConfig()
    async with AsyncExitStack() as stack:
        if factory is None:
            loop = await stack.enter_async_context(wire.open_loop(loop))
        nursery = await stack.enter_async_context(open_background())
        if factory is None:
            assert loop is not None
            factory = _default_factory(loop, config, pki, nursery)
        make = functools.partial(_make, factory, pki, cert_common_name)
        pool = DynamicPool(
            make,
            nursery,
            config,
            metrics=metrics or default_pool_metrics(),
            rng=rng or random.Random(),  # noqa: S311  (spreads load, protects nothing)
        )
        seconds = -math.inf
        try:
            pool.update(addresses)
            yield pool
            seconds = grace
        finally:
            with trio.move_on_at(trio.current_time() + seconds):
                await pool.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_dns_pool(
    targets: Iterable[str],
    *,
    config: PoolConfig | None = None,
    factory: MTLSRunnerFactory | None = None,
    loop: wire.Loop | None = None,
    pki: PKIData | None = None,
    cert_common_name: str = "",
    grace: float = CLOSE_GRACE,
    metrics: PoolMetrics | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[DynamicPool]:
    """A pool of what the names of ``targets`` stand for, looked up again and again.

    A target is ``dns://name:port`` (a runner at each address of the name), ``srv://name`` (a
    runner at each address of the hosts that its SRV records of the first priority name), or a
    plain ``host:port``. Names are looked up as often as their TTL says, within the limits of
    ``config``, and early when a runner can't be reached. The last good answer is kept as long as
    a look-up fails or finds nothing. Opening waits for the first answers, but not for those that
    fail.

    Without ``cert_common_name`` the certificate of a runner must have the name of its target, or
    the host that an SRV record names. All else as for `open_dynamic_pool`. Raises `ConfigError`
    for a bad target, or if the system has no DNS server for one that is a name.
    """
    config = config or PoolConfig()
    metrics = metrics or default_pool_metrics()
    rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
    parsed = parse_targets(targets)
    resolver = _resolver(parsed, config)
    async with (
        open_dynamic_pool(
            config=config,
            factory=factory,
            loop=loop,
            pki=pki,
            cert_common_name=cert_common_name,
            grace=grace,
            metrics=metrics,
            rng=rng,
        ) as pool,
        open_background() as nursery,
    ):
        discovery = Discovery(pool, parsed, resolver, config, metrics, rng)
        await discovery.start(nursery)
        yield pool
        nursery.cancel_scope.cancel()


def _resolver(targets: Iterable[Target], config: PoolConfig) -> Resolver | None:
    """``None`` if all are addresses: most pools need no DNS server, and not the 1.5 MB either that
    dnspython takes."""
    if all(isinstance(target, FixedTarget) for target in targets):
        return None
    from ._dns import Resolver

    return Resolver(config)


def _default_factory(
    loop: wire.Loop, config: PoolConfig, pki: PKIData | None, nursery: trio.Nursery
) -> MTLSRunnerFactory:
    if pki is None:
        log.warning("runners are reached without TLS")
        return mtls_runner_factory(loop, config=config)
    tls = wire.TLSFiles(pki, wire.client_tls)
    nursery.start_soon(tls.watch, config.tls_reload_interval)
    return mtls_runner_factory(loop, config=config, tls=tls)


def _make(
    factory: MTLSRunnerFactory, pki: PKIData | None, common_name: str, address: str, name: str
) -> Runner:
    return factory(address, common_name or name, pki)
