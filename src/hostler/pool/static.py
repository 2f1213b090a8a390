"""A pool whose runners never change."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import structlog
import trio

from .. import wire
from .._arguments import all_of, check
from .._fast import FastPool
from ..abc import MTLSRunnerFactory, PKIData, Runner, RunnerCall
from ..config import PoolConfig
from ..errors import ConfigError
from .runner import GrpcRunner

log = structlog.get_logger(__name__)

CLOSE_GRACE = 30.0
"""Seconds that attempts get to finish when a pool's block is left. An LB agent, which is opened
inside the block, has ended its calls by then."""


@attrs.frozen(kw_only=True)
class RunnerAccess:
    """How a pool reaches its runners, and how long it lets them finish.

    ``factory`` makes the runners. By default it is `mtls_runner_factory` over ``loop``, or over a
    loop that is found or opened. Without ``pki`` runners are reached in plaintext, with a warning.
    ``cert_common_name`` is the name in the runners' certificates if it is not their host's.
    Attempts get ``grace`` seconds to finish when the pool's block is left.
    """

    factory: MTLSRunnerFactory | None = None
    loop: wire.Loop | None = None
    pki: PKIData | None = None
    cert_common_name: str = ""
    grace: float = CLOSE_GRACE


class StaticPool(FastPool):
    """Owns ``runners`` and offers all of them to each call, in their order."""

    def __init__(self, runners: Iterable[Runner]) -> None:
        self._runners = tuple(runners)

    def __repr__(self) -> str:
        return f"<StaticPool {len(self._runners)} runners>"

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint()
        return self._runners

    def runners_now(self, call: RunnerCall) -> Sequence[Runner]:
        return self._runners

    async def aclose(self) -> None:
        async with trio.open_nursery() as nursery:
            for runner in self._runners:
                nursery.start_soon(close_runner, runner)


async def close_runner(runner: Runner) -> None:
    """Close ``runner``. A failure is logged, so that other runners are closed, too."""
    try:
        await runner.aclose()
    except Exception:
        log.exception("runner could not be closed", runner=runner.address)


def mtls_runner_factory(
    loop: wire.Loop,
    *,
    config: PoolConfig | None = None,
    tls: wire.TLSFiles | None = None,
) -> MTLSRunnerFactory:
    """A factory of runners that are reached over gRPC; with PKI data, over mutual TLS.

    ``loop`` is what `hostler.wire.open_loop` returned. ``tls`` is used for runners with the same
    PKI data, and follows changes of its files if its owner has it do so. Other files are read once.
    The factory does not connect. It raises `ConfigError` for a bad address or bad PEM files.
    """
    settings = config or PoolConfig()
    read = functools.cache(wire.client_tls)

    def tls_of(pki: PKIData) -> wire.TLS:
        return tls if tls is not None and tls.pki == pki else read(pki)

    def make(address: str, cert_common_name: str, pki: PKIData | None) -> Runner:
        try:
            client = wire.GrpcRunnerClient(
                address,
                wire.ConnectOptions(
                    ssl_context=None if pki is None else tls_of(pki),
                    server_name=cert_common_name,
                    connect_timeout=settings.connect_timeout,
                    keepalive=keepalive_of(settings),
                    share_limit=settings.multiplex_limit,
                ),
                loop=loop,
            )
        except ValueError as error:
            raise ConfigError(f"runner address {address!r}: {error}") from error
        return GrpcRunner(client)

    return make


def keepalive_of(config: PoolConfig) -> wire.Keepalive:
    """When a silent runner is given up, as ``config`` says."""
    return wire.Keepalive(
        interval=config.keepalive_interval,
        timeout=config.keepalive_timeout,
        vanished=config.vanished_timeout,
    )


@asynccontextmanager
async def open_static_pool(
    addresses: Iterable[str], access: RunnerAccess | None = None
) -> AsyncIterator[StaticPool]:
    """A pool of one runner per address (``host:port``). Does not connect to any.

    Raises `ConfigError` for a bad address or bad PEM files. Leaving the block refuses new attempts
    and gives the running ones ``access.grace`` seconds. There is no grace if an exception or a
    cancellation leaves the block.
    """
    addresses = all_of("open_static_pool: addresses", addresses, str)
    check("open_static_pool", optional=True, access=(access, RunnerAccess))
    access = access or RunnerAccess()
    async with AsyncExitStack() as stack:
        factory = access.factory
        if factory is None:
            if access.pki is None:
                log.warning("runners are reached without TLS")
            factory = mtls_runner_factory(
                await stack.enter_async_context(wire.open_loop(access.loop))
            )
        name, pki = access.cert_common_name, access.pki
        pool = StaticPool([factory(address, name, pki) for address in addresses])
        seconds = -math.inf
        try:
            yield pool
            seconds = access.grace
        finally:
            with trio.move_on_at(trio.current_time() + seconds):
                await pool.aclose()
