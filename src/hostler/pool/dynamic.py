"""Dynamic pools: members come and go, are watched for health and load."""

from __future__ import annotations

import functools
import math
import random
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Literal

import attrs
import structlog
import trio

from .. import wire
from .._arguments import all_of, check
from .._concurrency.nurseries import open_background
from .._fast import FastPool
from ..abc import (
    LoadListener,
    MTLSRunnerFactory,
    Outcome,
    PKIData,
    Runner,
    RunnerCall,
    RunnerPool,
)
from ..config import PoolConfig
from ..errors import HostlerError, NoRunnerReached
from ..protocol import UNAVAILABLE_STATUS, EngagementFailed, LoadHint
from .health import HealthChange, HealthTracker, PoolMetrics, default_pool_metrics
from .static import RunnerAccess, close_runner, mtls_runner_factory

GROWTH = 1.6
"""Factor from one pause to the next, as in gRPC's own backoff."""

FIRST_PAUSE = 0.1
"""Share of the probe interval. A whole interval would find a runner late that has only
restarted."""

JITTER = (0.8, 1.2)
"""Range of a random factor, so that load balancers don't knock at the same moment."""


class WatchBackoff:
    """The growing pauses between two attempts to reach a runner that is watched."""

    def __init__(self, config: PoolConfig, rng: random.Random) -> None:
        self._longest = config.probe_interval
        self._rng = rng
        self.reset()

    def reset(self) -> None:
        """The runner was reached: the next pause is short."""
        self._pause = FIRST_PAUSE * self._longest

    async def wait(self) -> None:
        """Pause. The next pause is longer, up to the probe interval."""
        await trio.sleep(self._pause * self._rng.uniform(*JITTER))
        self._pause = min(self._pause * GROWTH, self._longest)


class HealthWatch:
    """Watches the health of one runner, in a task that runs as long as the runner is a member of
    its pool."""

    def __init__(
        self, runner: Runner, tracker: HealthTracker, config: PoolConfig, rng: random.Random
    ) -> None:
        self._runner = runner
        self._tracker = tracker
        self._listens = config.health_watch
        self._backoff = WatchBackoff(config, rng)
        self._unreachable = trio.Event()

    def note_unreachable(self) -> None:
        """The runner can't be reached: start to probe."""
        self._unreachable.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if self._listens:
                await self._listen()
            self._tracker.fell_silent(self._runner, trio.current_time())
            await self._unreachable.wait()
            self._unreachable = trio.Event()
            await self._probe()

    async def _listen(self) -> None:
        """Returns if the runner can't tell its health."""
        while True:
            try:
                async with aclosing(self._runner.watch_health()) as words:
                    async for serving in words:
                        self._backoff.reset()
                        now = trio.current_time()
                        self._tracker.says(self._runner, now, serving=serving)
            except HostlerError as error:
                if isinstance(error, EngagementFailed) and error.status != UNAVAILABLE_STATUS:
                    return
                self._tracker.failed(self._runner, trio.current_time(), _reason(error))
            else:
                return
            await self._backoff.wait()

    async def _probe(self) -> None:
        self._backoff.reset()
        while self._tracker.is_unreachable(self._runner):
            try:
                await self._runner.status()
            except EngagementFailed as error:
                if error.status != UNAVAILABLE_STATUS:
                    self._tracker.reached(self._runner, trio.current_time())
            except HostlerError:
                pass
            else:
                self._tracker.reached(self._runner, trio.current_time())
            await self._backoff.wait()


def _reason(error: HostlerError) -> str:
    return error.text if isinstance(error, EngagementFailed) else str(error)


log = structlog.get_logger(__name__)

MakeRunner = Callable[[str, str], Runner]
"""Makes a runner of its address and the name that its certificate must have ("" = its host)."""


@attrs.frozen(kw_only=True)
class DynamicPoolStatistics:
    """How many runners a pool offers, has ejected, and lets finish."""

    runners: int
    ejected: int
    leaving: int


RunnerState = Literal["in use", "ejected", "refuses", "returning", "unreachable"]


@attrs.frozen(kw_only=True)
class RunnerHealth:
    """How a pool judges one of its runners."""

    address: str
    state: RunnerState
    """``refuses``: by its own word. ``returning``: it is back, and gets ``share`` of its calls.
    ``unreachable``: it is tried all the same, because too few others are left."""
    cause: str
    """Why it is ejected, else ""."""
    share: float


@attrs.define(eq=False)
class _Member:
    runner: Runner
    name: str
    watch: HealthWatch
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Ends the task that watches the runner."""


class DynamicPool(FastPool):
    """A pool whose runners come and go. Made by `open_dynamic_pool`.

    It offers no runner that should get no calls for now, see `hostler.pool.health`. If that leaves
    none, it offers all.
    """

    def __init__(
        self,
        make: MakeRunner,
        nursery: trio.Nursery,
        config: PoolConfig,
        *,
        metrics: PoolMetrics,
        rng: random.Random,
    ) -> None:
        self._make = make
        self._nursery = nursery
        self._config = config
        self.metrics = metrics
        self._rng = rng
        self._tracker = HealthTracker(config, self)
        self._members: dict[str, _Member] = {}
        self._offer: tuple[Runner, ...] = ()
        self._leaving: set[trio.CancelScope] = set()
        self._all_gone = trio.Event()
        self._ejected = 0
        self._closed = False
        self._broadcast = LoadBroadcast(self)
        self.on_unreachable: Callable[[], None] = lambda: None
        """Called when a runner can't be reached. It may have moved."""

    def __repr__(self) -> str:
        return f"<DynamicPool {'closed' if self._closed else 'open'} {self.statistics()}>"

    def statistics(self) -> DynamicPoolStatistics:
        """The number of runners now. Synchronous."""
        return DynamicPoolStatistics(
            runners=len(self._members), ejected=self._tracker.ejected, leaving=len(self._leaving)
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """``host:port`` of each present runner, including runners that get no calls for now."""
        return tuple(self._members)

    def health(self) -> list[RunnerHealth]:
        """The health of each present runner, including runners that get no calls for now.
        Synchronous."""
        return [self._health(member.runner) for member in self._members.values()]

    def _health(self, runner: Runner) -> RunnerHealth:
        share = self._tracker.share(runner, trio.current_time())  # first: may end an ejection
        cause = self._tracker.cause(runner) or ""
        state: RunnerState
        if cause:
            state = "ejected"
        elif self._tracker.refuses(runner):
            state = "refuses"
        elif self._tracker.is_unreachable(runner):
            state, share = "unreachable", 0.0
        else:
            state = "in use" if share >= 1 else "returning"
        return RunnerHealth(address=runner.address, state=state, cause=cause, share=share)

    def update(self, addresses: Iterable[str], *, cert_common_name: str = "") -> None:
        """Replace the pool's runners by the runners at ``addresses`` (``host:port``).

        Synchronous. Runners that stay keep their connections. Runners that leave get no new calls
        and have ``leave_grace`` seconds to finish theirs. Raises `ConfigError` for a bad address,
        and changes nothing then. Does nothing once the pool is closed.
        """
        self.assign(dict.fromkeys(addresses, cert_common_name))

    def assign(self, names: Mapping[str, str]) -> None:
        """As `update`, for addresses with the name that the certificate of each must have."""
        if self._closed:
            return
        added = {
            address: self._make(address, name)
            for address, name in names.items()
            if address not in self._members or self._members[address].name != name
        }
        gone = [address for address in self._members if address not in names or address in added]
        for address in gone:
            self._leave(address)
        for address, runner in added.items():
            self._join(address, names[address], runner)
        self._members = {address: self._members[address] for address in names}
        self._offer = tuple(member.runner for member in self._members.values())
        if added or gone:
            log.info("runners changed", joined=list(added), left=gone, runners=len(names))

    def _join(self, address: str, name: str, runner: Runner) -> None:
        watch = HealthWatch(runner, self._tracker, self._config, self._rng)
        member = self._members[address] = _Member(runner, name, watch)
        self._tracker.join(runner)
        self.metrics.joined.inc()
        self.metrics.runners.inc()
        self._nursery.start_soon(self._watch, member)

    async def _watch(self, member: _Member) -> None:
        with member.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member.watch.run)
                if self._config.load_watch:
                    load = LoadWatch(member.runner, self._broadcast, self._config, self._rng)
                    nursery.start_soon(load.run)

    def _leave(self, address: str) -> None:
        member = self._members.pop(address)
        member.scope.cancel()
        self._tracker.leave(member.runner)
        self._count_ejected()
        self.metrics.left.inc()
        self.metrics.runners.dec()
        scope = trio.CancelScope(deadline=trio.current_time() + self._config.leave_grace)
        self._leaving.add(scope)
        self._nursery.start_soon(self._see_off, member.runner, scope)

    async def _see_off(self, runner: Runner, scope: trio.CancelScope) -> None:
        self.metrics.leaving.inc()
        try:
            with scope:
                await close_runner(runner)
            if scope.cancelled_caught and not self._closed:
                log.warning("runner that left was cut off", runner=runner.address)
        finally:
            self.metrics.leaving.dec()
            self._leaving.discard(scope)
            if not self._leaving:
                self._all_gone.set()

    def add_load_listener(self, listener: LoadListener) -> None:
        self._broadcast.add(listener)

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint()
        return self.runners_now(call)

    def runners_now(self, call: RunnerCall) -> Sequence[Runner]:
        if self._tracker.all_sound:
            return self._offer
        self.check_reachable()
        now = trio.current_time()
        # A call that was refused, or has waited, needs capacity wherever it is: then returning
        # runners get their full share.
        least = 0.0 if call.attempts or call.waited else self._rng.random()
        chosen = [runner for runner in self._offer if self._tracker.share(runner, now) > least]
        return chosen or self._last_resort(now)

    def check_reachable(self) -> None:
        """See `RunnerPool`: the time is ``config.unreachable_wait``."""
        since = self._tracker.none_reached_since
        if since < math.inf and trio.current_time() >= since + self._config.unreachable_wait:
            raise NoRunnerReached

    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        self._tracker.note_outcome(runner, call, outcome, seconds, trio.current_time())

    def _last_resort(self, now: float) -> Sequence[Runner]:
        """Runners that are just back, or else runners that don't refuse calls themselves, or else
        all."""
        back = [runner for runner in self._offer if self._tracker.share(runner, now)]
        return back or [r for r in self._offer if not self._tracker.refuses(r)] or self._offer

    def note_health(self, change: HealthChange) -> None:
        """See `HealthListener`."""
        runner = change.key
        assert isinstance(runner, Runner)
        details = {"runner": runner.address, "reason": change.reason}
        self._count_ejected()
        if change.kind == "ejected":
            assert change.cause is not None
            self.metrics.ejections[change.cause].inc()
            log.warning("runner ejected", cause=change.cause, **details)
            if change.cause == "unreachable":
                self._look_for(runner)
        elif change.kind == "unreachable":
            log.warning("runner is unreachable, and too few others are left", **details)
            self._look_for(runner)
        elif change.kind == "reachable":
            log.info("runner is reachable again", **details)
        elif change.kind == "refuses":
            self.metrics.refusals.inc()
            log.info("runner takes no calls", **details)
        else:
            self.metrics.returns.inc()
            log.info("runner is in use again", **details)

    def _look_for(self, runner: Runner) -> None:
        """``runner`` is unreachable: probe it, and look its name up."""
        self._members[runner.address].watch.note_unreachable()
        self.on_unreachable()

    def _count_ejected(self) -> None:
        self.metrics.ejected.value += self._tracker.ejected - self._ejected
        self._ejected = self._tracker.ejected

    async def aclose(self) -> None:
        self.update(())
        self._closed = True
        try:
            await self._wait_gone()
        finally:
            for scope in self._leaving:
                scope.cancel()
            # Shielded: the tasks that close leaving runners are cancelled, and end soon.
            with trio.CancelScope(shield=True):
                await self._wait_gone()

    async def _wait_gone(self) -> None:
        while self._leaving:
            await self._all_gone.wait()
            self._all_gone = trio.Event()
        await trio.lowlevel.checkpoint()


class LoadWatch:
    """Listens to the load of one runner, in a task that runs as long as the runner is a member of
    its pool.

    ``broadcast`` gets each hint, and ``None`` when the runner can't be heard any more.
    """

    def __init__(
        self, runner: Runner, broadcast: LoadBroadcast, config: PoolConfig, rng: random.Random
    ) -> None:
        self._runner = runner
        self._broadcast = broadcast
        self._backoff = WatchBackoff(config, rng)

    async def run(self) -> None:
        """Listen until cancelled. Returns if the runner does not report its load, as Fn's runners
        don't."""
        while await self._listen():
            await self._backoff.wait()

    async def _listen(self) -> bool:
        """Whether to try again."""
        try:
            async with aclosing(self._runner.watch_load()) as hints:
                async for hint in hints:
                    self._backoff.reset()
                    self._broadcast.tell(self._runner, hint)
        except EngagementFailed as error:
            return error.status == UNAVAILABLE_STATUS
        except HostlerError:  # the runner can't be reached, or is about to leave the pool
            return True
        finally:
            self._broadcast.tell(self._runner, None)
        return False


class LoadBroadcast:
    """Passes the load hints of one pool's runners to placers. It does not keep placers alive."""

    def __init__(self, pool: RunnerPool) -> None:
        self._pool = pool
        self._listeners: weakref.WeakSet[LoadListener] = weakref.WeakSet()
        self._latest: dict[Runner, LoadHint] = {}

    def __repr__(self) -> str:
        return f"<LoadBroadcast listeners={len(self._listeners)} runners={len(self._latest)}>"

    def add(self, listener: LoadListener) -> None:
        """Tell ``listener`` the latest hints, and each new one. Idempotent."""
        if listener in self._listeners:
            return
        self._listeners.add(listener)
        for runner, hint in self._latest.items():
            listener.note_load(self._pool, runner, hint)

    def tell(self, runner: Runner, hint: LoadHint | None) -> None:
        """``runner`` has reported its load; ``None`` = it can't be heard any more."""
        if hint is None:
            if self._latest.pop(runner, None) is None:
                return
        else:
            self._latest[runner] = hint
        for listener in tuple(self._listeners):
            listener.note_load(self._pool, runner, hint)


@asynccontextmanager
async def open_dynamic_pool(
    addresses: Iterable[str] = (),
    *,
    config: PoolConfig | None = None,
    access: RunnerAccess | None = None,
    metrics: PoolMetrics | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[DynamicPool]:
    """A pool whose runners are judged, and can be changed at any time by ``pool.update``.

    Changes of ``access.pki``'s files are followed, unless ``access`` has a factory. ``rng`` is the
    source of jitter; tests pass a seeded one. Raises `ConfigError` for a bad address or bad PEM
    files. The end of the block is like that of `open_static_pool`.
    """
    addresses = all_of("open_dynamic_pool: addresses", addresses, str)
    check("open_dynamic_pool", optional=True, config=(config, PoolConfig))
    check("open_dynamic_pool", optional=True, access=(access, RunnerAccess))
    check("open_dynamic_pool", optional=True, metrics=(metrics, PoolMetrics))
    config = config or PoolConfig()
    access = access or RunnerAccess()
    async with AsyncExitStack() as stack:
        if access.factory is None:
            loop = await stack.enter_async_context(wire.open_loop(access.loop))
            nursery = await stack.enter_async_context(open_background())
            factory = _default_factory(loop, config, access.pki, nursery)
        else:
            nursery = await stack.enter_async_context(open_background())
            factory = access.factory
        make = functools.partial(_make, factory, access.pki, access.cert_common_name)
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
            seconds = access.grace
        finally:
            with trio.move_on_at(trio.current_time() + seconds):
                await pool.aclose()
            nursery.cancel_scope.cancel()


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
